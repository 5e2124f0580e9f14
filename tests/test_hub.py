"A model is pushed to a Hugging Face server and read back; the server is this machine's."
import base64, hashlib, json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
import child
import pytest

files = {} # of the repository

class Hub(BaseHTTPRequestHandler):
    "As much of the Hub's interface as an upload and a download need"
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_): pass
    def said(self, body=b'', status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for k,v in ({'Content-Length': len(body)} | {k.replace('_','-'): v for k,v in headers.items()}).items(): self.send_header(k, str(v))
        self.end_headers()
        if self.command!='HEAD': self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        at = self.path.split('?')[0]
        if at=='/api/repos/create': return self.said(dict(url='http://127.0.0.1/lab/kang', id='lab/kang', name='lab/kang'))
        if at=='/api/validate-yaml': return self.said(dict(errors=[], warnings=[]))
        if '/preupload/' in at: return self.said(dict(files=[dict(path=o['path'], uploadMode='regular', shouldIgnore=False) for o in json.loads(body)['files']]))
        if '/commit/' in at:
            for line in map(json.loads, body.splitlines()):
                if line['key']=='file': files[line['value']['path']] = base64.b64decode(line['value']['content'])
            return self.said(dict(commitUrl='http://127.0.0.1/lab/kang/commit/'+'a'*40, commitOid='a'*40, pullRequestUrl=None))
        self.said({}, 404)
    def do_GET(self):
        at = self.path.split('?')[0]
        if '/resolve/' in at:
            body = files.get(at.rsplit('/', 1)[1])
            if body is None: return self.said({}, 404, X_Error_Code='EntryNotFound')
            return self.said(body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit='a'*40)
        if at.startswith('/api/models/'): return self.said(dict(id='lab/kang', sha='a'*40, siblings=[dict(rfilename=o) for o in files]))
        self.said({}, 404)
    do_HEAD = do_GET

script = '''
import sys
from pertnb.datasets import *
from pertnb.data import *
from pertnb.training import *
from pertnb.generation import generate
from pertnb.hub import SharedModel
data = PertData(demo(800), **known_datasets['demo'][1])
model, _ = fit(data.to_genes(choose_genes(data, 100)), epochs=1, progress=False)
SharedModel(model).push_to_hub('lab/kang', token='hf_none')
again = SharedModel.from_pretrained('lab/kang', cache_dir=sys.argv[1], token=False).model
a, b = (generate(m, data[data.is_control], 'IFNB', progress=False).X for m in (model, again))
assert (a!=b).nnz==0
print('the same cells')
'''

def test_push_and_read_back(tmp_path):
    pytest.importorskip('huggingface_hub')
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        env = dict(HF_ENDPOINT=f'http://127.0.0.1:{server.server_port}', HF_HOME=str(tmp_path/'home'), HF_HUB_DISABLE_XET='1', HF_HUB_DISABLE_TELEMETRY='1', no_proxy='127.0.0.1')
        failed, out, err = child.in_process(child.with_env, env, child.code, script, tmp_path/'cache')
    finally: server.shutdown()
    assert not failed, err[-3000:]
    assert out.strip().endswith('the same cells') and {'config.json','model.safetensors','README.md'} <= set(files)

def test_a_folder_is_as_good_as_a_server(tmp_path):
    pytest.importorskip('huggingface_hub')
    from pertnb.data import PertData, choose_genes
    from pertnb.datasets import demo, known_datasets
    from pertnb.hub import SharedModel
    from pertnb.training import fit
    data = PertData(demo(300), **known_datasets['demo'][1])
    model, _ = fit(data.to_genes(choose_genes(data, 50)), epochs=1, progress=False)
    SharedModel(model).save_pretrained(tmp_path/'model')
    again = SharedModel.from_pretrained(tmp_path/'model').model
    assert again.genes==model.genes and all(a.equal(b) for a,b in zip(again.parameters(), model.parameters(), strict=True))
    assert {'config.json','model.safetensors'} <= {o.name for o in (tmp_path/'model').iterdir()}
