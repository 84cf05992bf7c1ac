"""The ASGI application: who may ask, errors as JSON, a line in the log and a count for every request."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Router

from .keys import carried
from .logs import LOGGER
from .refusal import Gone, Refusal
from .routes import Routes
from .service import Service

OPEN = frozenset({"/health", "/ready"})  # probes carry no key
_ID = re.compile(rb"[\w.:-]{1,64}")
_log = logging.getLogger(LOGGER)
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class App:
    """A service as an ASGI application.

    Args:
        keys: one of which every request must carry, except those of probes; none asks for none.
    """

    def __init__(self, service: Service, keys: Sequence[bytes] = ()) -> None:
        self.service, self.keys = service, tuple(keys)
        self._router = Router(Routes(service).table(), redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.service.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, number = time.perf_counter(), _id(scope)
        scope["app"] = self  # with which the router raises, instead of answering in plain text
        found: dict[str, Any] = {"status": 499}

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                found["status"] = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", number.encode())]
            await send(message)

        refusal = None
        try:
            await self._route(scope, receive, sending)
        except Gone:
            found["reason"] = "the client has left"
        except Refusal as error:
            refusal = error
        except HTTPException as error:
            refusal = Refusal(error.status_code, _said(error, scope), headers=error.headers)
        except Exception as error:
            # What failed is for the log; the client is told where to find it there.
            found |= {"failure": type(error).__name__}
            _log.exception("failed", extra={"request": number})
            refusal = Refusal(500, f"this server failed; its log has request {number}", "Backend")
        if refusal is not None:
            found["reason"] = refusal.sentence
            await _refuse(refusal, scope, receive, sending)
        self._record(scope, number, found, time.perf_counter() - began)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.keys and scope["path"] not in OPEN and not carried(scope["headers"], self.keys):
            raise Refusal(
                401,
                "this server asks for a key: send Authorization: Bearer KEY",
                "Unauthorized",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if scope["method"] != "POST":  # probes and metrics are answered however full it is
            await self._router(scope, receive, send)
            return
        with self.service.admission.request() as held:
            scope["held"] = held
            await self._router(scope, receive, send)

    def _record(self, scope: Scope, number: str, found: dict[str, Any], seconds: float) -> None:
        route = getattr(scope.get("endpoint"), "__name__", "none")
        self.service.metrics.answered(route, found["status"], seconds)
        level = logging.DEBUG if route in ("health", "ready", "metrics") else logging.INFO
        if _log.isEnabledFor(level):
            fields = {"request": number, "route": route, "ms": round(seconds * 1000, 2), **found}
            model = scope.get("path_params", {}).get("model")
            _log.log(level, "request", extra=fields | ({"model": model} if model else {}))


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a reason, as the clients of the route read it."""
    openai = scope["path"].startswith("/v1/")
    content = orjson.dumps(refusal.for_openai() if openai else refusal.for_tei())
    response = Response(content, refusal.status, refusal.headers, "application/json")
    await response(scope, receive, send)


def _said(error: HTTPException, scope: Scope) -> str:
    if error.status_code == 404:
        return "there is no such route; POST /embed, /rerank, /predict or /v1/embeddings"
    return f"{error.detail}: {scope['method'][:20]} is not for this route"


def _id(scope: Scope) -> str:
    """The client's own number for a request, where it is one that a log can hold; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return value.decode()
    return uuid.uuid4().hex
