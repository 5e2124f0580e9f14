"The Kang loader against a server on loopback: a good file, a file cut short, no file, no server."
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
import pytest
from pertnb.core import InputError
from pertnb.datasets import demo, kang18

class Handler(SimpleHTTPRequestHandler):
    "Serves a folder; `lies.h5ad` is cut off after half of the length that was promised"
    def log_message(self, *args): pass
    def copyfile(self, source, out):
        data = source.read()
        out.write(data[:len(data)//2] if 'lies' in self.path else data)

@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.delenv('PERTNB_DATA', raising=False)
    served = tmp_path/'served'; served.mkdir()
    a = demo(400)
    a = a[a.obs.condition.isin(['control','IFNB'])].copy()
    a.obs['label'] = a.obs.condition.astype(str).map({'control':'ctrl', 'IFNB':'stim'}).astype('category')
    del a.obs['condition']
    a.write_h5ad(served/'good.h5ad')
    good = (served/'good.h5ad').read_bytes()
    (served/'lies.h5ad').write_bytes(good)
    (served/'cut.h5ad').write_bytes(good[:len(good)//2])
    s = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=str(served)))
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{s.server_port}'
    s.shutdown(); s.server_close()

def test_good_file_is_kept_and_its_labels_translated(server, tmp_path):
    a = kang18(f'{server}/good.h5ad', tmp_path/'cache')
    assert set(a.obs.condition) == {'control','IFNB'}
    b = kang18('http://127.0.0.1:9/good.h5ad', tmp_path/'cache') # no server: it comes from the cache
    assert a.shape == b.shape

@pytest.mark.parametrize('file', ['cut.h5ad', 'lies.h5ad'])
def test_file_cut_short_is_said_and_not_kept(server, tmp_path, file):
    with pytest.raises(InputError) as e: kang18(f'{server}/{file}', tmp_path/'cache')
    assert '\n' not in str(e.value)
    assert not [o for o in (tmp_path/'cache').iterdir()] # the next call starts afresh

def test_404_and_no_server_name_the_demo(server, tmp_path):
    for url in (f'{server}/absent.h5ad', 'http://127.0.0.1:9/kang.h5ad'):
        with pytest.raises(InputError, match='demo') as e: kang18(url, tmp_path/'cache')
        assert '\n' not in str(e.value)

def test_local_folder_comes_first(server, tmp_path, monkeypatch):
    (tmp_path/'served'/'good.h5ad').rename(tmp_path/'kang_2018.h5ad')
    monkeypatch.setenv('PERTNB_DATA', str(tmp_path))
    assert set(kang18('http://127.0.0.1:9/x.h5ad').obs.condition) == {'control','IFNB'}
