"""A server process: bundles loaded and tried, a socket, uvicorn, and an end in order."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

import uvicorn

from ...ir.errors import ConfigError
from ...ir.host.files import why
from .app import App
from .connection import Connection
from .logs import LOGGER, log_to_stderr
from .model import Model
from .service import Limits, Service

KEEP = 65  # seconds that an idle connection stays: longer than clients' pools keep it, as far as they say
_log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Settings:
    """Of a server. keys: one of which requests must carry. parallel: calls computed at once. grace: seconds
    that accepted requests have to end after SIGTERM."""

    host: str = "127.0.0.1"
    port: int = 8000
    keys: Sequence[bytes] = ()
    limits: Limits = field(default_factory=Limits)
    parallel: int = 1
    grace: float = 60.0
    log_level: str = "info"


def serve(models: Mapping[str, Model], settings: Settings) -> None:
    """Answer requests until SIGTERM or SIGINT; what is accepted by then is finished.

    Raises:
        ConfigError: the address can't be listened on.
    """
    log_to_stderr(settings.log_level)
    listening = listen(settings.host, settings.port)
    service = Service(models, settings.limits, settings.parallel)
    config = uvicorn.Config(
        App(service, settings.keys),
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
    )
    host, port = listening.getsockname()[:2]
    _log.info("listening", extra={"host": host, "port": port, "models": list(models)})
    if not settings.keys and not ip_address(host.partition("%")[0]).is_loopback:
        _log.warning("other machines can ask this server, and it asks for no key")
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again once everything has ended
        uvicorn.Server(config).run(sockets=[listening])
    _log.info("ended")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ConfigError where there can't be one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"{host}:{port} can't be listened on: {why(error)}") from error
