"""A request's body: read within limits of size and time, and parsed, or refused with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .refusal import Gone, Refusal

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Parsed = TypeVar("Parsed", bound=BaseModel)


async def read_body(
    headers: Sequence[tuple[bytes, bytes]],
    receive: Receive,
    most: int,
    seconds: float,
    hold: Callable[[int], None] = lambda size: None,
) -> bytes:
    """All of the body.

    Args:
        hold: told how many bytes came; refuses where all requests together hold too many.

    Raises:
        Refusal: it isn't JSON by its headers, is larger than `most` bytes or takes longer than `seconds`.
        Gone: the client has left.
    """
    named = dict(headers)
    kind = named.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Refusal(415, "send JSON, with the header Content-Type: application/json")
    if b"content-encoding" in named:
        raise Refusal(415, "bodies are taken as they are: leave Content-Encoding out")
    length = named.get(b"content-length", b"0")
    if length.isdigit() and int(length) > most:
        raise _too_large(most)
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                hold(len(parts[-1]))
                if size > most:
                    raise _too_large(most)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive in {seconds:g} seconds", headers=_CLOSE) from None


def parse(kind: type[Parsed], body: bytes, openai: bool) -> Parsed:
    """The request in a body. Raises Refusal with the first thing that is wrong with it."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        broken = first["type"] == "json_invalid"
        status = 400 if openai or broken else 422
        said = first["msg"].removeprefix("Value error, ")[:300]
        sentence = said if broken else f"{where or 'the body'}: {said}"
        raise Refusal(status, sentence, param=where or None) from None


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body is larger than {most} bytes: send fewer texts at once", headers=_CLOSE)


_CLOSE = {"Connection": "close"}  # what is left of the body is not read
