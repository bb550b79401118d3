"""Ask an HTTP endpoint for ages: with a rate limit, pauses after failures, a budget, and a cache, so that nothing is paid twice.

Each answer is stored as soon as it is received, under the digest of the image and of the request. A key is in memory only: it is
replaced by the name of its environment variable in every answer and message.
"""

import base64
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from agebench.config.cards.external import ExternalCard
from agebench.config.cards.external_http import IMAGE
from agebench.errors import UserError
from agebench.estimators.external.http_answers import ApiAnswer, parse_answer
from agebench.estimators.external.http_request import chat_request, fill, request_digest, secrets_of, sign_for_aws
from agebench.estimators.external.io_spec import ExternalModelError
from agebench.utils.io import write_json, write_text
from agebench.utils.locks import held
from agebench.utils.paths import cache_home

# The first images without an age after which a test stops: the card's `age` is wrong, or the request.
MAX_FIRST_FAILURES = 5
_MAX_ANSWER = 4 * 2**20  # bytes
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_REFUSED = frozenset({401, 402, 403})
# The lock of each open model, and the thread that opened it.
_OPEN: set[tuple[Path, int]] = set()


class _BusyError(Exception):
    """The endpoint is busy, out of order or did not answer in time.

    Args:
        problem: description without secrets.
        pause: seconds that the endpoint asks to wait; 0 if it states none.
    """

    def __init__(self, problem: str, pause: float = 0.0) -> None:
        super().__init__(problem)
        self.pause = pause


class HttpModel:
    """An endpoint; close it after use.

    Args:
        card: a card of the format http.

    Raises:
        UserError: httpx or tenacity is not installed, an environment variable is not set, or the model is open already.
    """

    def __init__(self, card: ExternalCard) -> None:
        assert card.http is not None
        self.card, self.request = card, card.http
        self._secrets = secrets_of(card)
        try:
            import httpx
            import tenacity
        except ImportError as error:
            raise UserError(f"model '{card.name}' is called by HTTP: pip install 'agebench[http]'") from error
        self._httpx, self._tenacity = httpx, tenacity
        home = cache_home() / "http"
        self.folder, self._calls = home / f"{card.name}-{request_digest(card)}", home / f"{card.name}.calls"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._next_call, self._n_failed, self._has_succeeded = 0.0, 0, False
        lock = home / f"{card.name}.lock"
        with ExitStack() as stack:  # what is entered is left again if a later step fails or is interrupted
            stack.enter_context(_opened_once(lock, card.name))
            stack.enter_context(held(lock, f"{card.name}: asking {card.source}"))
            # Redirects are not followed: they would carry the keys to another host.
            self._client = stack.enter_context(httpx.Client(timeout=card.timeout, follow_redirects=False))
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close the connection and release the cache."""
        self._stack.close()

    def ask(self, content: bytes, kind: str, key: bytes = b"") -> ApiAnswer:
        """Return the answer for an image: the stored one, else that of the endpoint.

        Args:
            content: the encoded image.
            kind: its media type, e.g. image/png.
            key: the bytes that identify the image; empty: `content`.

        Raises:
            ExternalModelError: the endpoint refuses, stays busy, or the budget is spent; answers so far are kept.
        """
        file = self.folder / f"{hashlib.sha256(key or content).hexdigest()[:32]}.json"
        stored = _read_stored(file)
        if stored is None:
            stored = self._call(content, kind)
            # A refusal of the image, or a page that is no JSON, is not paid for, and is asked for again by a later run.
            if stored["status"] < 300 and "answer" in stored:
                write_json(file, stored)
        answer = parse_answer(stored, self.card)
        self._has_succeeded |= math.isfinite(answer.age)
        self._n_failed += not math.isfinite(answer.age)
        if not self._has_succeeded and self._n_failed >= MAX_FIRST_FAILURES:
            where = self.request.age or "the answer's text"
            raise ExternalModelError(
                f"model '{self.card.name}': the first {self._n_failed} answers hold no age at {where}, the last was "
                f"{json.dumps(stored)[:300]}; mend the table [http] of its card"
            )
        return answer

    def _call(self, content: bytes, kind: str) -> dict[str, Any]:
        tenacity, first = self._tenacity, self.request.pause
        exponential = (
            tenacity.wait_exponential(multiplier=first, max=max(60.0, first)) if first else tenacity.wait_none()
        )

        def pause(state: Any) -> float:
            return max(float(exponential(state)), float(state.outcome.exception().pause))

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.request.attempts),
            wait=pause,
            retry=tenacity.retry_if_exception_type(_BusyError),
            reraise=True,
        )
        try:
            stored: dict[str, Any] = retrying(self._call_once, content, kind)
        except _BusyError as error:
            raise ExternalModelError(
                f"model '{self.card.name}': {self.card.source} {error} in {self.request.attempts} attempts; the answers so far are "
                "kept, and the same command continues"
            ) from None
        return stored

    def _call_once(self, content: bytes, kind: str) -> dict[str, Any]:
        """Call the endpoint once.

        Raises:
            _BusyError: it is worth another attempt.
            ExternalModelError: it is not.
        """
        self._spend()
        time.sleep(max(0.0, self._next_call - time.monotonic()))
        self._next_call = time.monotonic() + 1 / self.request.rate
        try:
            status, headers, answer = self._post(content, kind)
        except self._httpx.TimeoutException:
            raise _BusyError(f"did not answer within {self.card.timeout:g} s") from None
        except (self._httpx.TransportError, self._httpx.DecodingError) as error:  # its text may contain the request
            raise _BusyError(f"cannot be reached ({type(error).__name__})") from None
        if status in _BUSY or (status >= 400 and _has_code(answer, self.request.busy_codes)):
            raise _BusyError(f"answered with status {status}", _retry_after(headers))
        if (
            status in _REFUSED
            or 300 <= status < 400
            or (status >= 400 and _has_code(answer, self.request.refusal_codes))
        ):
            raise ExternalModelError(
                f"model '{self.card.name}': {self.card.source} refused with status {status}: {self._scrub(answer)[:300]}"
            )
        text = self._scrub(answer)
        try:
            return {"status": status, "answer": json.loads(text, parse_constant=lambda _: None)}
        except (ValueError, RecursionError):
            return {"status": status, "text": text[:2000]}

    def _post(self, content: bytes, kind: str) -> tuple[int, Mapping[str, str], str]:
        """Send a request; return status, headers and text, of which at most `_MAX_ANSWER` bytes are read."""
        received = b""
        with self._client.stream("POST", self.card.source, **self._message(content, kind)) as response:
            for part in response.iter_bytes():
                received += part
                if len(received) > _MAX_ANSWER:
                    raise ExternalModelError(
                        f"model '{self.card.name}': {self.card.source} answered with more than {_MAX_ANSWER:,} bytes"
                    )
            return response.status_code, response.headers, received.decode("utf-8", "replace")

    def _spend(self) -> None:
        """Count one call; the number is kept over all runs of this card, with any request."""
        file = self._calls
        try:
            calls = int(file.read_text()) if file.exists() else self._earlier_calls()
        except ValueError:
            raise ExternalModelError(
                f"model '{self.card.name}': {file}, which counts the calls, is damaged: write the calls so far into it"
            ) from None
        if calls >= self.request.budget:
            raise ExternalModelError(
                f"model '{self.card.name}': the budget of {self.request.budget:,} calls is spent; the answers so far are kept. "
                "Raise http.budget on its card, and the same command continues"
            )
        write_text(file, f"{calls + 1}\n")

    def _earlier_calls(self) -> int:
        """Return the calls that earlier versions counted for each request of this card apart."""
        folders = self.folder.parent.glob(f"{self.card.name}-{'[0-9a-f]' * 16}")
        return sum(int(file.read_text()) for file in (folder / "calls" for folder in folders) if file.exists())

    def _message(self, content: bytes, kind: str) -> dict[str, Any]:
        """Return the arguments of the request: headers, and the body in its encoding."""
        image = base64.b64encode(content).decode()
        headers = fill(self.request.headers, self._secrets)
        if self.request.kind == "openai":
            return {"headers": headers, "json": chat_request(self.request.model, f"data:{kind};base64,{image}")}
        if self.request.encoding == "binary":
            return {"headers": {"Content-Type": "application/octet-stream", **headers}, "content": content}
        body = fill(self.request.body, {**self._secrets, IMAGE: image})
        if self.request.aws is not None:
            signed = json.dumps(body).encode()
            headers = sign_for_aws(self.card.source, headers, signed, self.request.aws, self._secrets)
            return {"headers": headers, "content": signed}
        return {"headers": headers, "data" if self.request.encoding == "form" else "json": body}

    def _scrub(self, text: str) -> str:
        """Replace keys by the names of their variables."""
        for name, value in sorted(self._secrets.items(), key=lambda secret: -len(secret[1])):
            escaped = json.dumps(value)[1:-1]
            for form in (value, escaped, escaped.replace("/", "\\/"), quote(value, safe=""), quote_plus(value)):
                text = text.replace(form, f"${{{name}}}")
        return text


@contextmanager
def _opened_once(lock: Path, name: str) -> Iterator[None]:
    """Refuse a model that this thread has open already: it would wait for its own lock without end."""
    key = (lock, threading.get_ident())
    if key in _OPEN:
        raise UserError(f"model '{name}': this process has it open already; close that estimator first")
    _OPEN.add(key)
    try:
        yield
    finally:
        _OPEN.discard(key)


def _read_stored(file: Path) -> dict[str, Any] | None:
    """Return a stored answer; None if there is none, or if it is damaged."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return stored if isinstance(stored, dict) and "status" in stored else None


def _has_code(answer: str, codes: Sequence[str]) -> bool:
    """Return whether an error answer has one of the codes, as a whole word."""
    return any(re.search(rf"(?<!\w){re.escape(code)}(?!\w)", answer) for code in codes)


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return min(max(float(headers.get("retry-after", 0)), 0.0), 600.0)
    except ValueError:  # a date
        return 0.0
