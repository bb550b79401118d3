"""Run a user's Python callable in a separate process, so that it may print, crash or hang.

Messages between the processes: one byte (kind) and eight bytes (a length); then text of this length, or so many arrays in
NumPy's format without pickles, each after eight bytes with its length.
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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as CallTimeout
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from agebench.config.cards.external import ExternalCard
from agebench.estimators.external.io_spec import ExternalModelError, select_output
from agebench.estimators.external.photos import photo_arguments, photo_reply
from agebench.estimators.packages import package_environment, require_package
from agebench.utils.allocator import keep_freed_memory

_ARRAYS, _TEXT = b"a", b"t"
_HEADER, _LENGTH = struct.Struct("<cQ"), struct.Struct("<Q")


class CallableProcess:
    """A Python function in its process: `process(*arrays) -> arrays`. Close it, or use it as a context manager.

    An exception of the function ends that call alone. Where the process ended or was killed, the next call starts another one.

    Args:
        card: the model's card.
        source: reference of the function; empty: the card's source.
        names: the outputs to select from the function's result; empty: those that the card reads.
        photos: whether the function takes one photograph per call, see `agebench.estimators.external.photos`.
        env: environment variables to set in the process.

    Raises:
        ExternalModelError: the module or function is missing, raised, ended its process, or timed out.
        UserError: the files of the card's package are not fetched.
    """

    def __init__(
        self,
        card: ExternalCard,
        source: str = "",
        names: tuple[str, ...] = (),
        *,
        photos: bool = False,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.card, self._source = card, source or card.source
        require_package(card)
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        names = names or card.output.reads
        self._words = [self._source, card.name, "photos" if photos else "batches", *names]
        self._env = {**os.environ, **package_environment(card), **env, "PYTHONPATH": path}
        self._is_closed = False
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agebench.estimators.external.callable", *self._words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._env,
            start_new_session=True,  # a process group, to be killed with its children
        )
        self._thread = ThreadPoolExecutor(1)
        self._exchange(None)  # the process reports that it has loaded the callable

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Return the function's outputs.

        Args:
            arrays: the arguments of the function: (B, …) prepared faces.

        Raises:
            ExternalModelError: the function raised, ended its process, or timed out, or the model is closed.
        """
        if self._is_closed:
            raise ExternalModelError(f"model '{self.card.name}' is closed; open it again")
        if self._process.returncode is not None:
            self._start()
        return self._exchange(arrays)

    def close(self) -> None:
        """Kill the process and its children, and start no other."""
        self._is_closed = True
        self._kill()

    def _kill(self) -> None:
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

    def _exchange(self, arrays: Sequence[np.ndarray] | None) -> list[np.ndarray]:
        try:
            reply = self._thread.submit(self._send_and_receive, arrays).result(self.card.timeout)
        except CallTimeout:
            self._kill()
            raise ExternalModelError(
                f"model '{self.card.name}': {self._source} did not return within {self.card.timeout:g} s; mend it, or "
                "raise `timeout` on its card"
            ) from None
        except (BrokenPipeError, EOFError):
            code = self._process.wait()
            self._kill()
            raise ExternalModelError(
                f"model '{self.card.name}': the process of {self._source} ended with exit code {code}"
            ) from None
        if isinstance(reply, str):
            if arrays is None:
                self._kill()
            raise ExternalModelError(reply)
        return reply

    def _send_and_receive(self, arrays: Sequence[np.ndarray] | None) -> list[np.ndarray] | str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if arrays is not None:
            _send(self._process.stdin, arrays)
        return _receive(self._process.stdout)


def _load_callable(reference: str) -> Callable[..., Any]:
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


def _serve(reference: str, model: str, mode: str, *names: str) -> None:
    """Reply to calls until the pipe is closed, or the function cannot be loaded."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the callable's prints must not mix with the messages
    try:
        function = _load_callable(reference)
    except Exception as error:  # user code may raise any exception
        _send(replies, _describe(error, reference, model))
        return
    _send(replies, [])
    while True:
        try:
            arrays = _receive(sys.stdin.buffer)
        except EOFError:
            return
        reply: list[np.ndarray] | str
        try:
            if mode == "photos":
                reply = photo_reply(function(*photo_arguments(arrays)), names, model)
            else:
                outputs = function(*arrays)
                reply = [np.asarray(select_output(outputs, name, model), dtype=np.float64) for name in names]
        except ExternalModelError as error:
            reply = str(error)
        except Exception as error:  # user code may raise any exception
            reply = _describe(error, reference, model)
        _send(replies, reply)


def _describe(error: Exception, reference: str, model: str) -> str:
    """Return the message of an exception of user code, with its file and line."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    problem = f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
    return f"model '{model}': {reference}: {problem}"


def _send(pipe: BinaryIO | Any, content: Sequence[np.ndarray] | str) -> None:
    if isinstance(content, str):
        payload = content.encode()
        pipe.write(_HEADER.pack(_TEXT, len(payload)) + payload)
    else:
        pipe.write(_HEADER.pack(_ARRAYS, len(content)))
        for array in content:
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            pipe.write(_LENGTH.pack(buffer.tell()))
            pipe.write(buffer.getvalue())
    pipe.flush()


def _receive(pipe: BinaryIO | Any) -> list[np.ndarray] | str:
    kind, length = _HEADER.unpack(_read(pipe, _HEADER.size))
    if kind == _TEXT:
        return _read(pipe, length).decode()
    contents = [_read(pipe, _LENGTH.unpack(_read(pipe, _LENGTH.size))[0]) for _ in range(length)]
    return [np.lib.format.read_array(io.BytesIO(content), allow_pickle=False) for content in contents]


def _read(pipe: BinaryIO | Any, length: int) -> bytes:
    content: bytes = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return content


if __name__ == "__main__":
    keep_freed_memory()
    _serve(*sys.argv[1:])
