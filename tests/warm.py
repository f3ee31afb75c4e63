"""A python whose imports are done: one process loads what the commands need, and forks for each command.

Called as `PROGRAM -m MODULE ARGUMENTS`, a command has its caller's folder, environment and streams, and the exit code
is the module's. It does what `python -m` does, but for the seconds of importing torch and transformers.
"""

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOADED = (
    "experiments.compute", "experiments.sweep", "experiments.problems.classification", "experiments.problems.language",
    "analysis.kit.study",
)  # fmt: skip
CLIENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [b"0"], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.makefile().read() or 1))
"""


@contextmanager
def python() -> Iterator[Path]:
    """The program, for as long as its process runs."""
    with tempfile.TemporaryDirectory() as folder:
        program, client, address = (Path(folder) / name for name in ("python", "client.py", "socket"))
        client.write_text(CLIENT)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{client}" "{address}" "$@"\n')
        program.chmod(0o755)
        command = [sys.executable, __file__, str(address)]
        root = Path(__file__).parents[1]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as server:
            assert server.stdout
            try:
                assert server.stdout.readline() == b"ready\n"
                yield program
            finally:
                server.terminate()


def _serve(address: str) -> None:
    sys.path[0] = os.getcwd()  # as with -m
    for module in LOADED:
        importlib.import_module(module)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
        print("ready", flush=True)
        while True:
            caller, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return _answer(caller)
            caller.close()


def _answer(caller: socket.socket) -> None:
    """Run what was asked for in a child, and say how it ended."""
    _, streams, _, _ = socket.recv_fds(caller, 1, 3)
    (_, module, *arguments), folder, environment = json.load(caller.makefile())
    child = os.fork()
    if child == 0:
        caller.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [module, *arguments]
        sys.path[0] = folder
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    for stream in streams:
        os.close(stream)
    _, status = os.waitpid(child, 0)
    caller.sendall(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    _serve(sys.argv[1])
