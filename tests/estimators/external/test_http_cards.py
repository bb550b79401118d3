"""The shipped cards of commercial APIs and vision-language models, against a local server that answers as their references do."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from agebench.config.cards.external import ExternalCard
from agebench.config.cards.external_http import AwsSignature
from agebench.config.toml_io import validate_model
from agebench.errors import UserError
from agebench.estimators.external.base import ExternalEstimator
from agebench.estimators.external.http_request import sign_for_aws
from agebench.estimators.external.io_spec import ExternalModelError
from agebench.registry.catalog import load_catalog

pytest.importorskip("httpx")
pytest.importorskip("tenacity")
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AZURE_FACE_KEY": "azure-key-0123456789",
    "FACEPP_API_KEY": "facepp-key-0123456789",
    "FACEPP_API_SECRET": "facepp-secret-0123456789",
}
Answer = Callable[[str, dict[str, str], bytes], tuple[int, Any]]


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls += 1
        status, answer = self.server.answer(self.path, dict(self.headers), body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Answers each call by `answer(path, headers, body)`."""

    daemon_threads = True
    calls = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Answer = lambda *_: (500, {})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("AGEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    server = Server()
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def local(name: str, server: Server) -> ExternalCard:
    """A shipped card with the address of the server, without pauses."""
    card = load_catalog().models.get(name)
    assert isinstance(card, ExternalCard)
    parts = urlsplit(card.source)
    source = f"http://127.0.0.1:{server.server_port}{parts.path}" + (f"?{parts.query}" if parts.query else "")
    keys = card.model_dump(mode="json") | {"source": source}
    keys["http"] |= {"rate": 1000.0, "pause": 0.0, "attempts": 3}
    return validate_model(ExternalCard, keys, source=name)


def estimate(name: str, server: Server, n: int = 1) -> Any:
    card = local(name, server)
    faces = np.stack([np.full((card.input.size, card.input.size, 3), 40 + i, np.uint8) for i in range(n)])
    with ExternalEstimator(card) as estimator:
        return estimator.estimate(faces)


def is_jpeg(text: str) -> bool:
    return base64.b64decode(text).startswith(b"\xff\xd8")


def test_face_plus_plus_answer_gives_age_and_gender(server: Server) -> None:
    def answer(path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        assert (form["api_key"], form["api_secret"]) == (KEYS["FACEPP_API_KEY"], KEYS["FACEPP_API_SECRET"])
        assert form["return_attributes"] == "gender,age"
        assert is_jpeg(form["image_base64"])
        if server.calls == 1:
            return 403, {"error_message": "CONCURRENCY_LIMIT_EXCEEDED"}
        return 200, {"faces": [{"attributes": {"age": {"value": 33}, "gender": {"value": "Male"}}}], "face_num": 1}

    server.answer = answer
    estimates = estimate("face-plus-plus", server)
    assert estimates.age.tolist() == [33]
    assert estimates.tasks["gender"].tolist() == [[0, 1]]
    assert server.calls == 2


def test_azure_gets_the_image_and_answers_with_a_list(server: Server) -> None:
    def answer(path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        assert "returnFaceAttributes=age" in path
        assert headers["Ocp-Apim-Subscription-Key"] == KEYS["AZURE_FACE_KEY"]
        assert body.startswith(b"\xff\xd8")
        return 200, [{"faceRectangle": {"top": 1}, "faceAttributes": {"age": 71.0}}] if server.calls < 2 else []

    server.answer = answer
    estimates = estimate("azure-face", server, 2)
    assert estimates.failed.tolist() == [False, True]
    assert estimates.age[0] == 71


def test_azure_without_approval_ends_the_test(server: Server) -> None:
    server.answer = lambda *_: (403, {"error": {"code": "InvalidRequest", "message": "unsupported"}})
    with pytest.raises(ExternalModelError, match="refused with status 403"):
        estimate("azure-face", server, 3)
    assert server.calls == 1


@pytest.mark.parametrize("name", ["qwen2-5-vl-7b", "smolvlm2-2b"])
def test_open_vision_language_model_is_asked_by_its_name(server: Server, name: str) -> None:
    def answer(path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        request = json.loads(body)
        assert path == "/v1/chat/completions"
        assert load_catalog().models.get(name).homepage.endswith(request["model"])
        return 200, {"choices": [{"message": {"content": '{"age": 27}'}}]}

    server.answer = answer
    assert estimate(name, server).age.tolist() == [27]


def test_cards_of_apis_are_unverified_and_need_their_keys(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    models = load_catalog().models
    cards = [
        card for card in map(models.get, models.names()) if isinstance(card, ExternalCard) and card.format == "http"
    ]
    assert len(cards) >= 5
    assert not any(card.verified for card in cards)
    monkeypatch.delenv("AZURE_FACE_KEY")
    with pytest.raises(UserError, match="set the environment variable AZURE_FACE_KEY"):
        estimate("azure-face", server)


def test_rekognition_age_is_the_middle_of_the_range(server: Server) -> None:

    def answer(path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        assert headers["X-Amz-Target"] == "RekognitionService.DetectFaces"
        assert headers["Content-Type"] == "application/x-amz-json-1.1"
        scope = headers["X-Amz-Date"][:8] + "/us-east-1/rekognition/aws4_request"
        assert headers["Authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={KEYS['AWS_ACCESS_KEY_ID']}/{scope}")
        assert is_jpeg(json.loads(body)["Image"]["Bytes"])
        if server.calls == 1:
            return 400, {"__type": "ThrottlingException", "message": "Rate exceeded"}
        return 200, {"FaceDetails": [{"AgeRange": {"Low": 22, "High": 30}, "Gender": {"Value": "Female"}}]}

    server.answer = answer
    estimates = estimate("aws-rekognition", server)
    assert estimates.age.tolist() == [26]
    assert estimates.tasks["gender"].tolist() == [[1, 0]]
    assert server.calls == 2


def test_rekognition_image_without_a_face_fails_and_wrong_keys_end_the_test(server: Server) -> None:
    server.answer = lambda *_: (200, {"FaceDetails": []})
    assert estimate("aws-rekognition", server).failed.tolist() == [True]
    server.answer = lambda *_: (400, {"__type": "UnrecognizedClientException", "message": "invalid token"})
    with pytest.raises(ExternalModelError, match="refused with status 400"):
        estimate("aws-rekognition", server, 3)
    assert server.calls == 2


def test_session_token_is_sent_and_redacted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "session-token-0123456789"
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    received: list[str] = []

    def answer(path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        received.append(headers["X-Amz-Security-Token"])
        return 400, {"__type": "ExpiredTokenException", "message": f"{token} is expired"}

    server.answer = answer
    with pytest.raises(ExternalModelError) as caught:
        estimate("aws-rekognition", server)
    assert received == [token]
    assert token not in str(caught.value)


def test_signature_is_that_of_the_published_example() -> None:
    # The case post-vanilla of AWS's test suite of Signature Version 4.
    signature = AwsSignature(service="service", region="us-east-1")
    now = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    headers = sign_for_aws("https://example.amazonaws.com/", {}, b"", signature, KEYS, now)
    assert headers["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, "
        "Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
    )


@pytest.mark.parametrize("query", ["", "?b=2&a=x%20y&empty="])
def test_signature_is_that_of_botocore(query: str) -> None:
    auth = pytest.importorskip("botocore.auth")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url, content = f"https://rekognition.us-east-1.amazonaws.com:8443/{query}", b'{"Image": {}}'
    given = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "RekognitionService.DetectFaces"}
    secrets = {**KEYS, "AWS_SESSION_TOKEN": "session-token-0123456789"}
    request = AWSRequest("POST", url, data=content, headers=given)
    keys = Credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"], secrets["AWS_SESSION_TOKEN"])
    auth.SigV4Auth(keys, "rekognition", "us-east-1").add_auth(request)
    now = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    signature = AwsSignature(service="rekognition", region="us-east-1")
    headers = sign_for_aws(url, given, content, signature, secrets, now)
    assert headers["Authorization"] == request.headers["Authorization"]


def test_range_of_ages_with_one_end_is_no_age(server: Server) -> None:
    server.answer = lambda *_: (200, {"FaceDetails": [{"AgeRange": {"Low": 22}, "Gender": {"Value": "Female"}}]})
    assert estimate("aws-rekognition", server).failed.tolist() == [True]
