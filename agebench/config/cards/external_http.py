"""Requests to models behind HTTP endpoints. Keys come from environment variables and are never on a card."""

import re
from collections.abc import Iterator, Mapping
from typing import Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, JsonValue, model_validator

from agebench.config.cards.base import Card, is_unset

# `${NAME}` in a header or in the body: an environment variable. `${image}` is the image as base64.
PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
IMAGE = "image"
# Names of headers, fields and query parameters that hold keys: `Authorization`, `X-Api-Key`, `accessToken`.
_SECRET_NAME = re.compile(
    r"(?:auth(?:orization|entication)?|key|token|secret|passw(?:or)?d|pwd|credentials?|signature|cookie|subscription)"
    r"(?:[^a-z]|$)|(?:^|[^a-z])sig(?:[^a-z]|$)"
)
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Words before a key in a header.
_SCHEMES = re.compile(r"\b(?:bearer|basic|digest|token|key|apikey)\b", re.IGNORECASE)
# Keys by their shape: well-known beginnings, and long words of letters and digits without separators.
_KEY_SHAPE = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk)[-_]\w{2}[\w-]{14,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{20,}|hf_\w{20,}|gh[a-z]_\w{20,}|"
    r"xox[a-z]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}|(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{32,})"
)
_LOCAL = ("localhost", "127.0.0.1", "::1")


class AwsSignature(Card):
    """The service and region that a request is signed for (AWS Signature Version 4)."""

    service: str = Field(min_length=1, description="as in the address, e.g. rekognition")
    region: str = Field(min_length=1, description="as in the address, e.g. us-east-1")


# The variables of AWS's own tools; a session token belongs to temporary keys only.
AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
AWS_SESSION = "AWS_SESSION_TOKEN"


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
    age_high: str = Field(
        default="",
        exclude_if=is_unset,
        description="of kind json: place of the upper end of a range of ages, whose lower end is `age`; the middle counts",
    )
    aws: AwsSignature | None = Field(
        default=None,
        exclude_if=is_unset,
        description="signs the request with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if set, AWS_SESSION_TOKEN",
    )
    busy_codes: tuple[str, ...] = Field(
        default=(),
        exclude_if=is_unset,
        description="error codes in answers with a status from 400 on that mean: try again later, as 429 does",
    )
    refusal_codes: tuple[str, ...] = Field(
        default=(),
        exclude_if=is_unset,
        description="error codes in answers with a status from 400 on that end the test, as 401 does",
    )
    rate: float = Field(default=1.0, gt=0, description="largest number of calls per second")
    attempts: int = Field(default=6, ge=1, le=20, description="calls per image where the endpoint is busy or fails")
    pause: float = Field(
        default=1.0, ge=0, description="seconds before the second attempt; each further pause is twice as long"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "openai":
            if not self.model or self.body or self.age or self.age_high or self.aws or self.encoding != "json":
                raise ValueError('kind = "openai" takes `model`, and no body, age, age_high, aws or encoding')
            return self
        for key, place in (("age", self.age), ("age_high", self.age_high or self.age)):
            if not place or any(not part for part in place.split(".")):
                raise ValueError(f"{key}: write the place of the age in the answer, e.g. faces.0.attributes.age")
        if self.aws is not None and self.encoding != "json":
            raise ValueError('aws: signed requests are of encoding = "json"')
        texts = list(_texts(self.body))
        if self.encoding == "binary" and texts:
            raise ValueError('encoding = "binary" sends the image alone, without body')
        if self.encoding != "binary" and not any("${image}" in text for text in texts):
            raise ValueError("body: it must hold ${image}")
        return self

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        for path, value in (*_named_texts(self.headers, "headers"), *_named_texts(self.body, "body")):
            if _holds_key(path.rpartition(".")[2], value):
                raise ValueError(
                    f"{path}: keys are never on a card; write ${{NAME}}, and set the environment variable NAME"
                )
        return self

    def variables(self) -> list[str]:
        """Return the names of the environment variables that the request needs."""
        texts = [*self.headers.values(), *_texts(self.body)]
        names = {name for text in texts for name in PLACEHOLDER.findall(text)} - {IMAGE}
        return sorted(names | set(AWS_KEYS if self.aws is not None else ()))


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
    query = [*parse_qsl(parts.query, keep_blank_values=True), *parse_qsl(parts.fragment)]
    secret = next((name for name, value in query if _holds_key(name, value)), None)
    if secret is not None:
        raise ValueError(
            f"source: its query parameter {secret!r} holds a key; write it into headers or body as ${{NAME}}, and set the "
            "environment variable NAME"
        )
    if parts.scheme == "http" and has_keys and parts.hostname not in _LOCAL:
        raise ValueError(f"source = {url!r}: keys are sent over https only")


def _holds_key(name: str, value: str) -> bool:
    """Return whether a named text holds a key itself, by its name or by its shape; placeholders are no keys."""
    rest = PLACEHOLDER.sub("", value)
    is_secret = bool(_SECRET_NAME.search(_CAPITAL.sub("_", name).lower()))
    return bool(is_secret and _SCHEMES.sub("", rest).strip(" :,")) or bool(_KEY_SHAPE.search(rest))


def _named_texts(value: JsonValue | Mapping[str, str], path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each text and of each long integer, which may be a key as well."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _named_texts(item, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from _named_texts(item, path)
    elif isinstance(value, str) or (isinstance(value, int) and abs(value) >= 10**7):
        yield path, str(value)


def _texts(value: JsonValue) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
