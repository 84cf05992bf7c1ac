"""A client's connection, within limits that uvicorn's own does not have."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

CONNECTIONS = 4096
SECONDS = 20.0  # for a request's head to come, and for a client to read what was sent
BYTES = 512 << 10  # of a request that aren't body: its head, what frames chunks, and what follows them


class Connection(HttpToolsProtocol):
    """uvicorn keeps a connection whose request's head never ends, in time or in length, and one that reads
    no answer, for ever. Here such a one is closed."""

    def connection_made(self, transport: Any) -> None:
        self._head: asyncio.TimerHandle | None = None
        self._reader: asyncio.TimerHandle | None = None
        self._other = self._bodies = 0
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self.resume_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._begin_head()
        before = self._bodies
        super().data_received(data)
        self._other += len(data) - (self._bodies - before)
        if self._other > BYTES and not self.transport.is_closing():
            self._refuse(431, "the head of the request is too large")

    def on_message_begin(self) -> None:
        self._other = 0
        self._begin_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bodies += len(body)
        super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader = self.loop.call_later(SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.resume_reader()

    def resume_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no HTTP request")

    def _begin_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(SECONDS, self._too_slow)

    def _end_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _too_slow(self) -> None:
        self._head = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._begin_head()  # the request before is still being answered
        elif not self.transport.is_closing():
            self._refuse(408, f"no request came within {SECONDS:g} seconds")

    def _refuse(self, status: int, sentence: str) -> None:
        content = orjson.dumps({"error": sentence, "error_type": "Validation"})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(content) + content)
        self.transport.close()
