"What needs a process of its own, but not its imports anew: a fork of this one."
import os, signal, sys, tempfile, traceback

def in_fork(f, seconds=300):
    "What became of `f()` in a fork: the exit code, and what it wrote to stdout and to stderr"
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        if not (pid := os.fork()):
            code = 1
            try:
                signal.alarm(seconds) # a hang is a failure
                for fd,file in enumerate((out, err), 1): os.dup2(file.fileno(), fd)
                sys.stdout, sys.stderr = (os.fdopen(fd, 'w', closefd=False) for fd in (1, 2))
                f()
                code = 0
            except SystemExit as e: code = e.code if isinstance(e.code, int) else int(e.code is not None)
            except BaseException: traceback.print_exc()
            finally:
                for stream in (sys.stdout, sys.stderr): stream.flush()
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for file in (out, err): file.seek(0)
        return status, out.read(), err.read()
