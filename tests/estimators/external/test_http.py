"""Endpoints that answer, time out, refuse, answer nonsense and are busy, on this machine."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agebench.cli import main
from agebench.config.cards.external import ExternalCard
from agebench.config.toml_io import validate_model
from agebench.errors import UserError
from agebench.estimators.external.base import ExternalEstimator, fingerprint
from agebench.estimators.external.io_spec import ExternalModelError

pytest.importorskip("httpx")
pytest.importorskip("tenacity")
SECRET = "sk-very-secret-0123456789"


class Server(ThreadingHTTPServer):
    """Answers with what `script` holds for each call, the last one for all later calls: a status, headers and a body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[tuple[int, dict[str, str], Any]] = []
        self.calls: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/age"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        step = min(len(self.server.calls), len(self.server.script) - 1)
        self.server.calls.append((dict(self.headers), body))
        status, headers, answer = self.server.script[step]
        if answer == "hang":
            threading.Event().wait(1)
            return
        content = (answer(json.loads(body)) if callable(answer) else answer).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("AGEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TEST_API_KEY", SECRET)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def brightness(body: dict[str, Any]) -> str:
    """The age is the first pixel's red."""
    with Image.open(io.BytesIO(base64.b64decode(body["picture"]))) as image:
        return json.dumps({"faces": [{"age": int(np.asarray(image)[0, 0, 0]), "sex": "Female"}]})


def card(server: Server, **http: Any) -> ExternalCard:
    request = {
        "budget": 50,
        "rate": 1000.0,
        "pause": 0.0,
        "headers": {"Authorization": "Bearer ${TEST_API_KEY}"},
        "body": {"picture": "${image}", "attributes": ["age"]},
        "age": "faces.0.age",
    }
    keys = {"name": "api", "title": "Api", "licence": "theirs", "format": "http", "source": server.url, "timeout": 0.3}
    output = {"gender": {"name": "faces.0.sex"}} if http.pop("gender", False) else {}
    request = {key: value for key, value in (request | http).items() if value is not None}
    return validate_model(
        ExternalCard, keys | {"http": request, "input": {"size": 16}, "output": output}, source="this test"
    )


def faces(*ages: int) -> np.ndarray:
    return np.stack([np.full((16, 16, 3), age, np.uint8) for age in ages])


def ask(model: ExternalCard, *ages: int) -> Any:
    with ExternalEstimator(model) as estimator:
        return estimator.estimate(faces(*ages))


def test_ages_and_genders_come_from_their_places_in_the_answer(server: Server) -> None:
    server.script = [(200, {}, brightness)]
    estimates = ask(card(server, gender=True), 20, 40)
    assert estimates.age.tolist() == [20, 40]
    assert estimates.tasks["gender"].tolist() == [[1, 0], [1, 0]]
    headers, body = server.calls[0]
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert json.loads(body)["attributes"] == ["age"]


def test_no_image_is_paid_for_twice(server: Server) -> None:
    server.script = [(200, {}, brightness)]
    assert ask(card(server), 20, 40, 20).age.tolist() == [20, 40, 20]
    assert ask(card(server), 40, 20, 30).age.tolist() == [40, 20, 30]
    assert len(server.calls) == 3
    ask(card(server, body={"picture": "${image}", "model": "other"}), 20)
    assert len(server.calls) == 4  # another request


def test_spent_budget_stops_and_a_larger_one_continues(server: Server) -> None:
    server.script = [(200, {}, brightness)]
    with pytest.raises(ExternalModelError, match=r"the budget of 2 calls is spent.*Raise http\.budget"):
        ask(card(server, budget=2), 20, 30, 40)
    with pytest.raises(ExternalModelError, match="budget of 2 calls"):
        ask(card(server, budget=2), 20, 30, 40)
    assert len(server.calls) == 2
    assert ask(card(server, budget=3), 20, 30, 40).age.tolist() == [20, 30, 40]
    assert len(server.calls) == 3


@pytest.mark.parametrize("fault", [(429, {"Retry-After": "0"}, "slow down"), (503, {}, ""), (200, {}, "hang")])
def test_busy_endpoint_is_asked_again(server: Server, fault: Any) -> None:
    server.script = [fault, fault, (200, {}, brightness)]
    assert ask(card(server), 33).age.tolist() == [33]
    assert len(server.calls) == 3


def test_endpoint_that_stays_busy_ends_the_test_and_keeps_answers(server: Server) -> None:
    server.script = [(200, {}, brightness), (429, {}, "")]
    with pytest.raises(ExternalModelError, match="answered with status 429 in 2 attempts; the answers so far are kept"):
        ask(card(server, attempts=2), 20, 30)
    server.script = [(200, {}, brightness)]
    assert ask(card(server), 20, 30).age.tolist() == [20, 30]
    assert len(server.calls) == 4


def test_unreachable_endpoint_is_named(server: Server) -> None:
    model = card(server, attempts=1).model_copy(update={"source": "http://127.0.0.1:9/"})
    with pytest.raises(ExternalModelError, match=r"cannot be reached \(ConnectError\)"):
        ask(model, 20)


@pytest.mark.parametrize(
    "answer", ["{]", "{}", '{"faces": []}', '{"faces": [{"age": null}]}', '{"faces": [{"age": "x"}]}']
)
def test_answer_without_an_age_is_a_failure_of_its_image(server: Server, answer: str) -> None:
    server.script = [(200, {}, brightness), (200, {}, answer), (200, {}, brightness)]
    estimates = ask(card(server), 20, 30, 40)
    assert estimates.failed.tolist() == [False, True, False]
    assert np.isnan(estimates.age[1])


@pytest.mark.parametrize("answer", ['{"faces": [{"age": 1' + "0" * 400 + "}]}", "<html>", "[" * 100_000])
def test_unreadable_answer_ends_no_test_and_is_asked_again(server: Server, answer: str) -> None:
    server.script = [(200, {}, brightness), (200, {}, answer), (200, {}, brightness)]
    assert ask(card(server), 20, 30).failed.tolist() == [False, True]
    calls = len(server.calls)
    assert np.isfinite(ask(card(server), 20).age).all()
    assert len(server.calls) == calls


def test_huge_answer_is_not_read_to_its_end(server: Server) -> None:
    server.script = [(200, {}, json.dumps({"faces": [{"age": 3}], "padding": "x" * (5 << 20)}))]
    with pytest.raises(ExternalModelError, match="answered with more than"):
        ask(card(server), 20)


def test_not_found_is_no_estimate(server: Server) -> None:
    server.script = [(200, {}, brightness), (404, {}, '{"faces": [{"age": 7}]}')]
    assert ask(card(server), 20, 30).failed.tolist() == [False, True]


def test_five_first_answers_without_an_age_stop_the_test(server: Server) -> None:
    server.script = [(200, {}, brightness)]
    with pytest.raises(ExternalModelError, match=r"the first 5 answers hold no age at face\.years.*\"faces\""):
        ask(card(server, age="face.years"), *range(20, 40))
    assert len(server.calls) == 5


@pytest.mark.parametrize("status", [401, 403, 302])
def test_refusal_stops_at_once_and_shows_no_key(
    server: Server, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = [(status, {"Location": "http://127.0.0.1:9/"}, f'your key "{SECRET}" is not valid')]
    with pytest.raises(ExternalModelError, match=f"refused with status {status}") as caught:
        ask(card(server), 20, 30)
    assert len(server.calls) == 1
    assert SECRET not in str(caught.value)
    assert "${TEST_API_KEY}" in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__) + repr(caught.value.__context__)


def test_keys_are_in_no_stored_file_and_no_card(server: Server, tmp_path: Path) -> None:
    server.script = [(200, {}, json.dumps({"faces": [{"age": 30}], "echo": f"Bearer {SECRET}"}))]
    with ExternalEstimator(card(server)) as estimator:
        assert estimator.estimate(faces(1)).age.tolist() == [30]
        assert SECRET not in estimator.card.model_dump_json() + repr(estimator.info)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".json" for path in files)
    assert not any(SECRET.encode() in path.read_bytes() for path in files)


def test_missing_key_is_named_before_any_work(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_API_KEY")
    with pytest.raises(UserError, match="set the environment variable TEST_API_KEY"):
        fingerprint(card(server))


def test_chat_completion_gets_prompt_and_image(server: Server) -> None:
    def chat(text: str) -> str:
        return json.dumps({"choices": [{"message": {"content": text}}]})

    texts = ['{"age": 31}', '```json\n{"age": 42.5}\n```', "About 25.", "Between 20 and 30"]
    texts += ["I cannot help with that.", '{"age": null}']
    server.script = [(200, {}, chat(text)) for text in texts]
    model = card(server, kind="openai", model="gpt-none", body=None, age=None)
    estimates = ask(model, *range(6))
    np.testing.assert_array_equal(estimates.age, [31, 42.5, 25, np.nan, np.nan, np.nan])
    assert estimates.failed.tolist() == [False, False, False, True, True, True]
    body = json.loads(server.calls[0][1])
    assert body["model"] == "gpt-none"
    text, image = body["messages"][0]["content"]
    assert "Estimate the apparent age" in text["text"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize("encoding", ["form", "binary"])
def test_body_is_sent_in_its_encoding(server: Server, encoding: str) -> None:
    server.script = [(200, {}, '{"faces": [{"age": 30}]}')]
    body = {"image": "${image}", "key": "${TEST_API_KEY}"} if encoding == "form" else None
    assert ask(card(server, encoding=encoding, body=body), 20).age.tolist() == [30]
    headers, content = server.calls[0]
    if encoding == "form":
        assert f"key={SECRET}".encode() in content
    else:
        assert headers["Content-Type"] == "application/octet-stream"
        assert content.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("source", "http"),
    [
        ("https://x.org/?key=${K}", {}),
        ("https://me:secret@x.org/", {}),
        ("http://x.org/", {}),
        ("ftp://x.org/", {}),
        ("https://x.org/?v=2&api_key=0123", {}),
        ("https://x.org/?code=sk-proj-0123456789abcdef", {}),
        ("https://x.org/", {"headers": {"X-Api-Key": "0123"}}),
        ("https://x.org/", {"headers": {"Authorization": "Bearer 0123 ${K}"}}),
        ("https://x.org/", {"headers": {"X-Custom": "0123456789abcdef0123456789abcdef"}}),
        ("https://x.org/", {"body": {"picture": "${image}", "api_key": "0123"}}),
        ("https://x.org/", {"body": {"picture": "${image}", "login": [{"accessToken": "0123"}]}}),
        ("https://x.org/", {"body": {"picture": "${image}", "password": 12345678}}),
        ("https://x.org/", {"body": {"picture": "none"}}),
        ("https://x.org/", {"age": "faces..age"}),
        ("https://x.org/", {"kind": "openai", "model": "m"}),
    ],
)
def test_cards_that_would_leak_or_cannot_work_are_refused(server: Server, source: str, http: dict[str, Any]) -> None:
    keys = card(server).model_dump(mode="json") | {"source": source}
    keys["http"] |= http
    with pytest.raises(UserError):
        validate_model(ExternalCard, keys, source="this test")


def test_request_without_keys_is_accepted(server: Server) -> None:
    headers = {"Authorization": "Bearer ${K}", "X-Requested-With": "agebench", "Ocp-Apim-Subscription-Key": "${K2}"}
    body = {"picture": "${image}", "max_tokens": 50, "keypoints": "true", "authors": "all", "api_key": "${K}"}
    request = card(server, headers=headers, body=body, model="gpt-4o-2024-08-06-preview").http
    assert request is not None
    assert request.variables() == ["K", "K2"]


@pytest.mark.parametrize("value", ["0123", " 0123456789"])
def test_key_that_cannot_be_redacted_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TEST_API_KEY", value)
    with pytest.raises(UserError, match=r"environment variable TEST_API_KEY has .* a key has at least 8"):
        fingerprint(card(server))


def test_key_that_begins_like_another_is_redacted_whole(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", SECRET[:12])
    server.script = [(401, {}, f"wrong: {SECRET}")]
    with pytest.raises(ExternalModelError) as caught:
        ask(card(server, headers={"X-A": "${A_KEY}", "X-B": "${TEST_API_KEY}"}), 20)
    assert SECRET[12:] not in str(caught.value)


def test_budget_is_that_of_the_card_whatever_its_request(server: Server) -> None:
    server.script = [(200, {}, brightness)]
    ask(card(server, budget=3), 20, 30)
    with pytest.raises(ExternalModelError, match="the budget of 3 calls is spent"):
        ask(card(server, budget=3, body={"picture": "${image}", "model": "other"}), 20, 30)
    assert len(server.calls) == 3


def test_model_that_is_open_is_not_opened_again(server: Server) -> None:
    server.script = [(200, {}, brightness)]
    model = card(server)
    with ExternalEstimator(model) as estimator:
        with pytest.raises(UserError, match="this process has it open already; close that estimator"):
            ExternalEstimator(model)
        assert estimator.estimate(faces(20)).age.tolist() == [20]
    assert ask(model, 30).age.tolist() == [30]


DATASET = """
name = "few"
title = "A few generated faces"
reader = "synth"
licence = "CC0-1.0"
faces = "none"
[options]
count = 30
seed = 11
"""
MODEL = """
name = "api"
kind = "external"
title = "An endpoint"
format = "http"
source = "{url}"
licence = "theirs"
[input]
size = 32
[http]
budget = {budget}
rate = 1000.0
pause = 0.0
age = "faces.0.age"
headers = {{ Authorization = "Bearer ${{TEST_API_KEY}}" }}
body = {{ picture = "${{image}}" }}
"""


def test_interrupted_test_continues_and_its_folder_holds_no_key(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = [(200, {}, brightness), (200, {}, '{"faces": []}'), (200, {}, brightness)]
    cards, out = tmp_path / "cards", tmp_path / "run"
    for kind in ("datasets", "models"):
        (cards / kind).mkdir(parents=True)
    (cards / "datasets" / "few.toml").write_text(DATASET)
    words = ["test", "--model", "api", "--test", "few", "--registry", str(cards), "--out", str(out)]
    words += ["--set", "evaluate.resamples=100"]
    (cards / "models" / "api.toml").write_text(MODEL.format(url=server.url, budget=10))
    assert main(words) == 1
    assert "the budget of 10 calls is spent" in capsys.readouterr().err
    (cards / "models" / "api.toml").write_text(MODEL.format(url=server.url, budget=40))
    assert main(words) == 0
    assert len(server.calls) == 30
    metrics = json.loads((out / "metrics.json").read_text())["tests"]["few"]
    assert metrics["failure_to_process"]["failed"] == 1
    assert not any(SECRET.encode() in path.read_bytes() for path in out.rglob("*") if path.is_file())
