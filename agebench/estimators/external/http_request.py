"""The requests to HTTP endpoints: keys from the environment, the body from the card's template, the encoded image."""

import hashlib
import hmac
import io
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import numpy as np
from PIL import Image

from agebench.config.cards.external import ExternalCard, HttpRequest
from agebench.config.cards.external_http import AWS_KEYS, AWS_SESSION, PLACEHOLDER, AwsSignature
from agebench.errors import UserError

MIN_SECRET = 8  # characters
_AWS_ALGORITHM = "AWS4-HMAC-SHA256"
# Change the prompt only together with its version: stored answers belong to one of them.
PROMPT_VERSION = 1
PROMPT = (
    "Estimate the apparent age in years of the person in this image. This is a test of age estimation on a research data set. "
    'Answer with JSON only: {"age": N}, N a number. If no face is visible, answer {"age": null}.'
)


def secrets_of(card: ExternalCard) -> dict[str, str]:
    """Return the environment variables that the card's request needs.

    Args:
        card: a card of the format http.

    Raises:
        UserError: a variable is not set, or too short to be found in answers.
    """
    assert card.http is not None
    names = card.http.variables()
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UserError(f"model '{card.name}': set the environment variable {missing[0]}, which its request needs")
    secrets = {name: os.environ[name] for name in names}
    if card.http.aws is not None and os.environ.get(AWS_SESSION):
        secrets[AWS_SESSION] = os.environ[AWS_SESSION]
    for name, value in secrets.items():
        if len(value) < MIN_SECRET or value != value.strip():
            raise UserError(
                f"model '{card.name}': the environment variable {name} has {len(value)} characters"
                f"{' and begins or ends with white space' if value != value.strip() else ''}; a key has at least {MIN_SECRET}, "
                "since a shorter one cannot be distinguished from other text of an answer. What is no key belongs on the card"
            )
    return secrets


def encode_face(face: np.ndarray, request: HttpRequest) -> tuple[bytes, str]:
    """Return the encoded face and its media type.

    Args:
        face: (S, S, 3) uint8 RGB.
        request: the card's request.
    """
    buffer = io.BytesIO()
    Image.fromarray(face).save(buffer, request.image.upper(), **({"quality": 95} if request.image == "jpeg" else {}))
    return buffer.getvalue(), f"image/{request.image}"


def fill(value: Any, values: Mapping[str, str]) -> Any:
    """Replace the placeholders in all texts of a table.

    Args:
        value: a text, or a table or list of texts.
        values: name of a placeholder -> text.
    """
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda match: values[match[1]], value)
    if isinstance(value, dict):
        return {key: fill(item, values) for key, item in value.items()}
    return [fill(item, values) for item in value] if isinstance(value, list) else value


def chat_request(model: str, url: str) -> dict[str, Any]:
    """Return the body of a chat completion with the fixed prompt and an image.

    Args:
        model: name of the model.
        url: the image as a data URL.
    """
    content = [{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": model, "temperature": 0, "max_tokens": 50, "messages": [{"role": "user", "content": content}]}


def sign_for_aws(
    url: str,
    headers: Mapping[str, str],
    content: bytes,
    signature: AwsSignature,
    secrets: Mapping[str, str],
    now: datetime | None = None,
) -> dict[str, str]:
    """Return the headers of a POST request with AWS Signature Version 4; all of them are signed.

    Args:
        url: the address.
        headers: the headers without signature.
        content: the body.
        signature: service and region.
        secrets: the keys by the names of their environment variables.
        now: time of the signature, UTC; None: the current time.
    """
    # Not by botocore: it is 32 MB for this function, and excludes python-dateutil 3 and newer. A test compares the two.
    parts, stamp = urlsplit(url), f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    sent = {**headers, "Host": parts.netloc, "X-Amz-Date": stamp}
    if AWS_SESSION in secrets:
        sent["X-Amz-Security-Token"] = secrets[AWS_SESSION]
    signed = {name.lower(): " ".join(value.split()) for name, value in sent.items()}
    names = ";".join(sorted(signed))
    query = urlencode(sorted(parse_qsl(parts.query, keep_blank_values=True)), quote_via=quote)
    lines = [f"{name}:{signed[name]}" for name in sorted(signed)]
    request = "\n".join(["POST", parts.path or "/", query, *lines, "", names, hashlib.sha256(content).hexdigest()])
    scope = f"{stamp[:8]}/{signature.region}/{signature.service}/aws4_request"
    text = "\n".join([_AWS_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{secrets[AWS_KEYS[1]]}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    credential = f"Credential={secrets[AWS_KEYS[0]]}/{scope}"
    authorization = f"{_AWS_ALGORITHM} {credential}, SignedHeaders={names}, Signature={key.hex()}"
    return {**sent, "Authorization": authorization}


def request_digest(card: ExternalCard) -> str:
    """Return the digest of what determines an answer, without keys and without what only reads the answer.

    Args:
        card: a card of the format http.
    """
    assert card.http is not None
    keys = {"kind", "model", "headers", "body", "encoding", "image"}
    content = {"source": card.source, "http": card.http.model_dump(mode="json", include=keys), "prompt": PROMPT_VERSION}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
