"""Requests to models behind HTTP endpoints. Keys come from environment variables and are never on a card."""

import re
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, model_validator

from agebench.config.cards.base import Card, is_unset

# `${NAME}` in a header or in the body: an environment variable. `${image}` is the image as base64.
PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
IMAGE = "image"
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|subscription", re.IGNORECASE)
_LOCAL = ("localhost", "127.0.0.1", "::1")


class HttpRequest(Card):
    """The request that asks an endpoint for the age in one image, and the place of the age in its JSON answer."""

    kind: Literal["json", "openai"] = Field(
        default="json", description="json: `body` and `age`; openai: a chat completion with an image and a fixed prompt"
    )
    budget: int = Field(ge=1, description="largest number of calls that may be paid for, over all runs of this card")
    model: str = Field(default="", exclude_if=is_unset, description="of kind openai: name of the model")
    headers: dict[str, str] = Field(
        default={}, exclude_if=is_unset, description="headers; ${NAME} is replaced by the environment variable NAME"
    )
    body: dict[str, JsonValue] = Field(
        default={},
        exclude_if=is_unset,
        description="of kind json: the request, in which ${image} is the image as base64 and ${NAME} an environment variable",
    )
    encoding: Literal["json", "form", "binary"] = Field(
        default="json", description="the body as JSON or as form fields; binary: the image's bytes are the body"
    )
    image: Literal["jpeg", "png"] = Field(
        default="png", description="how prepared faces are encoded; photographs stay as they are"
    )
    age: str = Field(
        default="",
        exclude_if=is_unset,
        description="of kind json: place of the age in the answer, e.g. faces.0.attributes.age",
    )
    rate: float = Field(default=1.0, gt=0, description="largest number of calls per second")
    attempts: int = Field(default=6, ge=1, le=20, description="calls per image where the endpoint is busy or fails")
    pause: float = Field(
        default=1.0, ge=0, description="seconds before the second attempt; each further pause is twice as long"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "openai":
            if not self.model or self.body or self.age or self.encoding != "json":
                raise ValueError('kind = "openai" takes `model`, and no body, age or encoding')
            return self
        if not self.age or any(not part for part in self.age.split(".")):
            raise ValueError("age: write the place of the age in the answer, e.g. faces.0.attributes.age")
        texts = list(_texts(self.body))
        if self.encoding == "binary" and texts:
            raise ValueError('encoding = "binary" sends the image alone, without body')
        if self.encoding != "binary" and not any("${image}" in text for text in texts):
            raise ValueError("body: it must hold ${image}")
        return self

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        for name, value in self.headers.items():
            if _SECRET_HEADER.search(name) and not PLACEHOLDER.search(value):
                raise ValueError(
                    f"headers.{name}: keys are never on a card; write ${{NAME}}, and set the environment variable NAME"
                )
        return self

    def variables(self) -> list[str]:
        """Return the names of the environment variables that the request needs."""
        texts = [*self.headers.values(), *_texts(self.body)]
        return sorted({name for text in texts for name in PLACEHOLDER.findall(text)} - {IMAGE})


def check_url(url: str, *, has_keys: bool) -> None:
    """Check the address of an endpoint.

    Args:
        url: the address.
        has_keys: whether the request holds keys.

    Raises:
        ValueError: it is no web address, holds a key, or would send keys without encryption.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"source = {url!r}: write the address of the endpoint, https://…")
    if parts.username or parts.password or "${" in url:
        raise ValueError("source: keys go into headers or body as ${NAME}, never into the address")
    if parts.scheme == "http" and has_keys and parts.hostname not in _LOCAL:
        raise ValueError(f"source = {url!r}: keys are sent over https only")


def _texts(value: JsonValue) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
