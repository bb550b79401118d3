"""The command `agebench` without its start: each call is a fork of one process that has imported the packages before."""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# Modules that most commands import; others are imported by the call that needs them.
PRELOADED = (
    *(
        "torch",
        "pandas",
        "scipy.stats",
        "matplotlib.figure",
        "agebench.cli",
        "agebench.runs.run",
        "agebench.reports.run",
    ),
    *(
        "torch._dynamo",
        "agebench.analysis.eda.report",
        "agebench.analysis.tuning.report",
        "agebench.analysis.robustness.run",
    ),
)
CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(call)
    sys.exit(int.from_bytes(server.recv(1) or b"\\1", "big"))
"""


@contextlib.contextmanager
def warm_commands(folder: Path) -> Iterator[Path]:
    """Write the command into a folder, and serve it.

    Args:
        folder: the folder of the command, for PATH; its path must be short, as that of a socket.
    """
    address = str(folder / "socket")
    with subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.DEVNULL) as server:
        try:
            while not os.path.exists(address):
                assert server.poll() is None, "the commands' server ended"
                time.sleep(0.02)
            (folder / "agebench").write_text(CLIENT.format(python=sys.executable, address=address))
            (folder / "agebench").chmod(0o755)
            yield folder
        finally:
            server.terminate()


def serve(address: str) -> None:
    """Answer every connection by a fork, until this process is ended.

    Args:
        address: path of the socket; it appears when the modules are imported.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                if not os.fork():
                    listener.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os._exit(call(connection))


def call(connection: socket.socket) -> int:
    """Run the command that a connection asks for, and send its exit code.

    Args:
        connection: the client's connection, which carries its arguments, folder, environment and streams.
    """
    code = 1
    try:
        start, streams, _, _ = socket.recv_fds(connection, 4, 3)
        content = b""
        while len(content) < int.from_bytes(start, "big"):
            content += connection.recv(1 << 16)
        words, folder, environment = json.loads(content)
        for descriptor, stream in enumerate(streams):
            os.dup2(stream, descriptor)
            os.close(stream)
        # New objects: those of the server remember what kind of file it had.
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, "w" if fd else "r", closefd=False) for fd in range(3))
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["agebench", *words]
        code = importlib.import_module("agebench.cli").main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        with contextlib.suppress(OSError, ValueError):  # a reader such as `head` may have closed the pipe
            sys.stdout.flush()
            sys.stderr.flush()
        connection.send(bytes([code & 0xFF]))
    return code & 0xFF


if __name__ == "__main__":
    serve(sys.argv[1])
