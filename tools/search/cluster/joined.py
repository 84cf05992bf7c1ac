"""The Ray that a person started (`ray start`), joined for as long as a search takes."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from ....backends.target import detect
from ....ir.errors import ConfigError, short

RESOURCE = "graphwright-measure:"  # before the name of a processor: a machine that may be measured on
_PATIENCE = 5.0  # seconds for a head to answer


@contextmanager
def joined() -> Iterator[None]:
    """The running Ray: the one that RAY_ADDRESS names, else this machine's; left again afterwards.

    Raises:
        ConfigError: Ray is not installed, none is running, or it can't be joined.
    """
    if find_spec("ray") is None:
        raise ConfigError("engine ray needs the package 'ray': pip install 'graphwright[cluster]'")
    import ray

    if ray.is_initialized():
        yield
        return
    address = _address()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:  # of another version of Ray or Python
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"the Ray at {address} can't be joined: {said}") from error
    try:
        yield
    finally:
        ray.shutdown()


def flag(processor: str) -> str:
    """What `ray start` is told on a machine that may be measured on."""
    return f"--resources='{{\"{RESOURCE}{processor}\": 1}}'"


def _address() -> str:
    """host:port of the head: what RAY_ADDRESS names, else what `ray start` left on this machine."""
    from ray._private.services import canonicalize_bootstrap_address_or_die as found

    named = os.environ.get("RAY_ADDRESS", "")
    start = f"start one with `ray start --head {flag(detect().model or detect().arch)}`"
    try:
        host, _, port = (address := named if "://" in named else found("auto")).rpartition(":")
        if not host or "://" in host or not port.isdigit():
            raise ValueError(address)
    except ConnectionError as error:
        raise ConfigError(
            f"no Ray is running on this machine: {start}, or name one in RAY_ADDRESS"
        ) from error
    except ValueError as error:
        raise ConfigError(f"RAY_ADDRESS is {short(named)}: name the head as host:port") from error
    try:  # `ray.init` would try for minutes and then end the process
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except OSError as error:
        raise ConfigError(f"no Ray answers at {address}: {start}, or name another in RAY_ADDRESS") from error
    return address
