"Make nbs/example/report.html, the report that the landing page opens: the demo's run, as `pertnb run` writes it. Run it again when the report's look changes."
import shutil, subprocess, sys, tempfile
from pathlib import Path

out = Path(__file__).resolve().parents[1]/'nbs'/'example'/'report.html'
if __name__=='__main__':
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([sys.executable, '-c', 'from pertnb.cli import main; main()', 'run', *(sys.argv[1:] or ['demo']), '--out', f'{d}/run'], check=True)
        out.parent.mkdir(exist_ok=True); shutil.copy(f'{d}/run/report.html', out)
    print(f'{out}: {out.stat().st_size/1e3:.0f} kB')
