"A training that is killed, starved of disk or stopped goes on to the very same weights, or says why not."
import json
import pytest
from child import code, in_process

# One process makes the cells; what it forks trains, and is killed. A thread each: forks and OpenMP do not mix.
prelude = '''
import hashlib, json, os, random, resource, signal, sys, time, warnings
import torch; torch.set_num_threads(1)
import safetensors.torch
from pertnb.datasets import *
from pertnb.data import *
from pertnb.training import *
folder, path = sys.argv[1], sys.argv[1]+'/kept'
study = PertData(demo(600), **known_datasets['demo'][1]); cells = study.to_genes(choose_genes(study, 100))
def train(**kw): return fit(cells, epochs=8, val_frac=.1, progress=False, **kw)[0]
def digest(model): return hashlib.sha256(b''.join(o.numpy().tobytes() for o in model.state_dict().values())).hexdigest()
pipes = {}
def child(f):
    "Fork; the child hands back what `f` returns, or the error"
    r, w = os.pipe()
    if pid := os.fork(): os.close(w); pipes[pid] = r; return pid
    try: res = f()
    except BaseException as e: res = f'{type(e).__name__}: {e}'
    os.write(w, str(res).encode()); os._exit(0)
def said(pid): # nothing, if it was killed
    os.waitpid(pid, 0)
    with os.fdopen(pipes.pop(pid)) as f: return f.read()
want = digest(train()) # here, so that no child spends its life on imports
'''

def run_in_process(tmp_path, body):
    failed, out, err = in_process(code, prelude+body, tmp_path)
    assert not failed, err[-2000:]
    return json.loads(out.strip().splitlines()[-1])

def test_killed_and_resumed(tmp_path):
    "30 kills by SIGKILL at random moments, over as many trainings as it takes; each ends with the same bits"
    res = run_in_process(tmp_path, '''
start = time.time(); said(child(lambda: digest(train(checkpoint=path, every=0)))); whole = time.time()-start
os.unlink(path); rng, kills, ended, resumed = random.Random(0), 0, [], 0
while kills<30 or not ended or os.path.exists(path):
    resumed += os.path.exists(path)
    pid = child(lambda: digest(train(checkpoint=path, every=kills%2*.01, resume=True)))
    time.sleep(rng.uniform(.1, .6)*whole)
    if kills<30: os.kill(pid, signal.SIGKILL)
    if answer := said(pid): ended.append(answer); os.path.exists(path) and os.unlink(path)
    else: kills += 1
print(json.dumps(dict(kills=kills, resumed=resumed, ended=ended, want=want, left=os.listdir(folder))))''')
    print(f"{res['kills']} kills, {res['resumed']} resumed, {len(res['ended'])} trainings ended, all as if never stopped: {set(res['ended'])=={res['want']}}")
    assert res['kills']>=30 and res['resumed']>=25 and set(res['ended'])=={res['want']}
    assert set(res['left'])<={'kept.part'}

def test_disk_full_and_no_permission(tmp_path):
    "What cannot be written is said, training goes on, and the state kept before stays whole"
    res = run_in_process(tmp_path, '''
def short_of(limit):
    def f():
        limit()
        with warnings.catch_warnings(record=True) as w: warnings.simplefilter('always'); model = train(checkpoint=path, every=0)
        return json.dumps([digest(model), len(w), str(w[0].message)])
    return f
def quota(): signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
def no_permission(): os.chmod(folder, 0o555); os.geteuid() or os.seteuid(65534)
os.chmod(folder, 0o755); said(child(lambda: train(checkpoint=path, every=0))); before = open(path, 'rb').read()
out = dict(want=want)
for name,limit in dict(full=quota, denied=no_permission).items():
    out[name] = json.loads(said(child(short_of(limit)))); os.chmod(folder, 0o755); out[name+' kept'] = open(path, 'rb').read()==before
print(json.dumps(out))''')
    for case, why in dict(full='too large', denied='denied').items():
        digest, n, message = res[case]
        print(message)
        assert digest==res['want'] and n and why in message.lower() and res[f'{case} kept']

@pytest.mark.parametrize('cut', [0, 1, 7, 100, 5000, -1])
def test_truncated(cut, tmp_path):
    "Half a file is never loaded"
    from pertnb.core import InputError
    from pertnb.data import PertData, choose_genes
    from pertnb.datasets import demo, known_datasets
    from pertnb.training import fit
    study = PertData(demo(300), **known_datasets['demo'][1]); cells = study.to_genes(choose_genes(study, 50))
    train = lambda **kw: fit(cells, epochs=1, progress=False, checkpoint=tmp_path/'kept', **kw)
    train(every=0)
    raw = (tmp_path/'kept').read_bytes(); (tmp_path/'kept').write_bytes(raw[:cut])
    with pytest.raises(InputError, match='not a whole checkpoint') as e: train(resume=True)
    print(e.value)
    (tmp_path/'kept').write_bytes(raw)
    with pytest.raises(InputError, match='lr 0.01 there|another training: lr'): train(resume=True, lr=.01)

def test_ctrl_c(tmp_path):
    "Ctrl-C keeps the state and says how to go on; so does the command"
    res = run_in_process(tmp_path, '''
pid = child(lambda: train(checkpoint=path, every=0))
while not os.path.exists(path): time.sleep(.01)
os.kill(pid, signal.SIGINT); stopped = said(pid)
print(json.dumps(dict(want=want, stopped=stopped, ended=said(child(lambda: digest(train(checkpoint=path, resume=True)))))))''')
    print(res['stopped'])
    assert 'resume=True' in res['stopped'] and res['ended']==res['want']
