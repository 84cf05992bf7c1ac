"""A TVM RPC tracker, asked for a device with every wait bounded: TVM's own client waits for ever."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any

from ....ir.errors import MeasureError

REACH = 5.0  # seconds for the tracker to answer
WAIT = 60.0  # seconds for a device to become free


@dataclass(frozen=True)
class Lease:
    """Where a device that the tracker has given out listens, and the word it expects."""

    host: str
    port: int
    match: str


class Tracker:
    """A connection to a tracker (`python -m tvm.exec.rpc_tracker`).

    Args:
        address: "HOST:PORT".

    Raises:
        MeasureError: the address is none, or no tracker answers there.
    """

    def __init__(self, address: str) -> None:
        from tvm.rpc.base import RPC_TRACKER_MAGIC, recvall

        self.address = address
        host, port = parse(address)
        try:
            self._socket = socket.create_connection((host, port), timeout=REACH)
            self._socket.sendall(struct.pack("<i", RPC_TRACKER_MAGIC))
            (magic,) = struct.unpack("<i", recvall(self._socket, 4))
        except (OSError, struct.error) as error:
            raise MeasureError(
                f"no TVM RPC tracker answers at {address} ({error}); start one there with "
                f"python -m tvm.exec.rpc_tracker --port {port} (pip install 'graphwright[rpc]')"
            ) from error
        if magic != RPC_TRACKER_MAGIC:
            self._socket.close()
            raise MeasureError(f"what listens at {address} is no TVM RPC tracker")

    def keys(self) -> tuple[str, ...]:
        """Of the devices that are registered, free or not."""
        from tvm.rpc.base import TrackerCode

        _, summary = self._ask([TrackerCode.SUMMARY], REACH)
        return tuple(sorted({entry["key"].partition(":")[2] for entry in summary["server_info"]}))

    def request(self, key: str, wait: float = WAIT) -> Lease:
        """A device of that key, once one is free.

        Raises:
            MeasureError: none is registered, or none was free within `wait` seconds.
        """
        from tvm.rpc.base import TrackerCode

        known = self.keys()
        if key not in known:
            there = ", ".join(known) or "none"
            raise MeasureError(f"the tracker at {self.address} has no device {key!r}; there are: {there}")
        try:
            _, (host, port, match) = self._ask([TrackerCode.REQUEST, key, "", 1], wait)
        except TimeoutError:
            raise MeasureError(f"no device {key!r} became free within {wait:.0f} s") from None
        return Lease(host, int(port), match)

    def _ask(self, message: list[Any], seconds: float) -> Any:
        """The answer; TimeoutError where there is none in time."""
        from tvm.rpc.base import recvjson, sendjson

        self._socket.settimeout(max(seconds, 0.01))
        try:
            sendjson(self._socket, message)
            return recvjson(self._socket)
        except TimeoutError:
            raise
        except (OSError, ValueError, struct.error) as error:
            raise MeasureError(f"the tracker at {self.address} hung up ({error})") from error

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def parse(address: str) -> tuple[str, int]:
    """(host, port) of "HOST:PORT". Raises MeasureError for anything else."""
    host, mark, port = address.rpartition(":")
    if not (mark and host and port.isdigit() and 0 < int(port) < 1 << 16):
        raise MeasureError(f"{address!r} is no address of a tracker; write HOST:PORT, as in 192.0.2.1:9190")
    return host.strip("[]"), int(port)
