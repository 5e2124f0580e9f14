"""What needs a process of its own, but not its imports anew: a server imports once, and forks.

A fork of the worker itself would not do: OpenMP, once used, ends its forks."""
import os, resource, sys, tempfile, traceback, warnings
from multiprocessing import get_context
from pathlib import Path

server = get_context('forkserver')
server.set_forkserver_preload(['pertnb.cli', 'pertnb.figure', 'pertnb.report', 'pertnb.speedrun', 'matplotlib.pyplot', 'scanpy', 'sklearn.tree', 'torch._dynamo'])

spent = [] # CPU seconds of each process made here, which is no child of ours

def _at(f, args, out, err):
    "Run `f` with stdout and stderr in these files; the CPU seconds it took beside the first"
    sys.stdout, sys.stderr = (open(o, 'w') for o in (out, err))
    os.dup2(sys.stdout.fileno(), 1); os.dup2(sys.stderr.fileno(), 2)
    code = 1
    try: f(*args); code = 0
    except SystemExit as e: code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException: traceback.print_exc()
    finally:
        for o in (sys.stdout, sys.stderr): o.flush()
        with open(f'{out}.cpu', 'w') as file: file.write(str(sum(os.times()[:4])))
        os._exit(code)

def begin(f, *args, out, err):
    "A process that runs `f(*args)` and writes to these files"
    process = server.Process(target=_at, args=(f, args, str(out), str(err)))
    process.start()
    return process

def end(process, out, seconds=300):
    "Wait for it, and count its CPU seconds"
    process.join(seconds)
    if process.exitcode is None: process.kill(); process.join() # a hang is a failure
    if (used := Path(f'{out}.cpu')).exists(): spent.append(float(used.read_text()))

def in_process(f, *args, err=None, seconds=300):
    "What became of `f(*args)` in a process of its own: the exit code, stdout and stderr (or '', if written to the file `err`)"
    with tempfile.TemporaryDirectory() as d:
        files = f'{d}/out', str(err or f'{d}/err')
        process = begin(f, *args, out=files[0], err=files[1])
        end(process, files[0], seconds)
        return process.exitcode, Path(files[0]).read_text(), '' if err else Path(files[1]).read_text()

def draw_blanks():
    "From now on figures are saved blank, where nobody looks at them"
    from matplotlib.figure import Figure
    save = Figure.savefig
    Figure.savefig = lambda self, file, **kw: save(Figure((1, 1)), file, **{k: v for k,v in kw.items() if k=='format'})

def command(*args, most_bytes=None, log_every=None):
    "The command; files of at most so many bytes, if given; progress in a log so often"
    import pertnb.core
    from pertnb.cli import main
    warnings.simplefilter('ignore')
    if most_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    if log_every: pertnb.core.log_every = log_every
    main([str(o) for o in args], prog_name='pertnb')

def code(text, *args):
    "Python code, with these arguments"
    warnings.simplefilter('ignore')
    sys.argv = ['-c', *map(str, args)]
    exec(text, {'__name__': '__main__'})

def command_without_figures(*args):
    draw_blanks()
    command(*args)

def fold(folder, data, args):
    "`pertnb.protocols.one_fold`, which ends with its parent's pipe; nobody looks at its figures"
    draw_blanks()
    from pertnb.core import atomic_dir
    from pertnb.speedrun import speedrun
    warnings.simplefilter('ignore')
    with atomic_dir(folder, ours='run.json') as f: speedrun(data, **args, progress=False).write(f)

def start_fold(folder, data, args, threads=None, cwd=None):
    "As in `pertnb.protocols`"
    from pertnb.protocols import finished
    if finished(folder, args): return ''
    failed, _, err = in_process(fold, folder, data, args)
    return (err.strip() or f'no error message, code {failed}').splitlines()[-1] if failed else ''

def script(path, folder, *args):
    "A script, called in this folder, without data"
    import runpy
    for o in ('PERTNB_DATA','PYTHONPATH'): os.environ.pop(o, None) # a stranger has neither
    os.chdir(folder)
    sys.argv = [str(path), *args]; sys.path[:0] = [str(path.parent)] # as Python does
    runpy.run_path(str(path), run_name='__main__')
