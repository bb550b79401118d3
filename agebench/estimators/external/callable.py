"""Run a user's Python callable in a separate process, so that it may print, crash or hang.

Messages between the processes: one byte (kind), eight bytes (length), then an array in NumPy's format without pickles,
or text.
"""

import importlib
import importlib.util
import io
import os
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as CallTimeout
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from agebench.config.cards.external import ExternalCard
from agebench.estimators.external.io_spec import ExternalModelError, select_output
from agebench.estimators.packages import package_environment, require_package

_ARRAY, _TEXT = b"a", b"t"
_HEADER = struct.Struct("<cQ")


class CallableProcess:
    """A card's callable in its process: `process(batch) -> array`. Close it, or use it as a context manager.

    Args:
        card: the model's card.

    Raises:
        ExternalModelError: the module or function is missing, raised, ended its process, or timed out.
        UserError: the files of the card's package are not fetched.
    """

    def __init__(self, card: ExternalCard) -> None:
        self.card = card
        require_package(card)
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agebench.estimators.external.callable", card.source, card.output.name, card.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **package_environment(card), "PYTHONPATH": path},
            start_new_session=True,  # a process group, to be killed with its children
        )
        self._thread = ThreadPoolExecutor(1)
        self._exchange(None)  # the process reports that it has loaded the callable

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Return the callable's output for a batch.

        Args:
            batch: (B, …) prepared faces.
        """
        return self._exchange(batch)

    def close(self) -> None:
        """Kill the process and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._thread.shutdown()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()

    def __enter__(self) -> "CallableProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, batch: np.ndarray | None) -> np.ndarray:
        try:
            reply = self._thread.submit(self._send_and_receive, batch).result(self.card.timeout)
        except CallTimeout:
            self.close()
            raise ExternalModelError(
                f"model '{self.card.name}': {self.card.source} did not return within {self.card.timeout:g} s; mend it, or "
                "raise `timeout` on its card"
            ) from None
        except (BrokenPipeError, EOFError):
            code = self._process.wait()
            self.close()
            raise ExternalModelError(
                f"model '{self.card.name}': the process of {self.card.source} ended with exit code {code}"
            ) from None
        if isinstance(reply, str):
            self.close()
            is_complete = reply.startswith("model '")
            raise ExternalModelError(reply if is_complete else f"model '{self.card.name}': {self.card.source}: {reply}")
        return reply

    def _send_and_receive(self, batch: np.ndarray | None) -> np.ndarray | str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if batch is not None:
            _send(self._process.stdin, batch)
        return _receive(self._process.stdout)


def load_callable(reference: str) -> Callable[..., Any]:
    """Import a function.

    Args:
        reference: `package.module:function` or `file.py:function`.

    Raises:
        TypeError: the name is not that of a function.
    """
    location, _, name = reference.rpartition(":")
    if location.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(location).stem, location)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        sys.path.insert(0, str(Path(location).parent))
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(location)
    function = getattr(module, name)
    if not callable(function):
        raise TypeError(f"{name} is {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def _serve(reference: str, output: str, model: str) -> None:
    """Reply to batches until the pipe is closed."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the callable's prints must not mix with the messages
    try:
        function = load_callable(reference)
        _send(replies, np.zeros(0))
        while True:
            batch = _receive(sys.stdin.buffer)
            _send(replies, np.asarray(select_output(function(batch), output, model), dtype=np.float64))
    except EOFError:
        return
    except ExternalModelError as error:
        _send(replies, str(error))
    except Exception as error:  # user code may raise any exception
        where = traceback.extract_tb(error.__traceback__)[-1]
        _send(replies, f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})")


def _send(pipe: BinaryIO | Any, content: np.ndarray | str) -> None:
    if isinstance(content, str):
        kind, payload = _TEXT, content.encode()
    else:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, content, allow_pickle=False)
        kind, payload = _ARRAY, buffer.getvalue()
    pipe.write(_HEADER.pack(kind, len(payload)))
    pipe.write(payload)
    pipe.flush()


def _receive(pipe: BinaryIO | Any) -> np.ndarray | str:
    header = pipe.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    kind, length = _HEADER.unpack(header)
    payload = pipe.read(length)
    if len(payload) < length:
        raise EOFError
    if kind == _TEXT:
        return str(payload.decode())
    array: np.ndarray = np.lib.format.read_array(io.BytesIO(payload), allow_pickle=False)
    return array


if __name__ == "__main__":
    _serve(*sys.argv[1:])
