"""The requests to HTTP endpoints: keys from the environment, the body from the card's template, the encoded image."""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from agebench.config.cards.external import ExternalCard, HttpRequest
from agebench.config.cards.external_http import PLACEHOLDER
from agebench.errors import UserError

MIN_SECRET = 8  # characters
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


def request_digest(card: ExternalCard) -> str:
    """Return the digest of what determines an answer, without keys and without what only reads the answer.

    Args:
        card: a card of the format http.
    """
    assert card.http is not None
    keys = {"kind", "model", "headers", "body", "encoding", "image"}
    content = {"source": card.source, "http": card.http.model_dump(mode="json", include=keys), "prompt": PROMPT_VERSION}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
