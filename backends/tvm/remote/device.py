"""A machine lent by a TVM RPC tracker.

Trust: whoever reaches an RPC server can run anything on it, and nothing on the wire is encrypted; trackers
and servers belong in a network of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from ....ir.errors import GraphwrightError, MeasureError
from ...runtimes.session import first_line
from ..run.library import compiler
from .tracker import WAIT, Lease, Tracker

SESSION = 1800.0
"""Seconds after which the server ends the session, whatever it is doing: nobody may hang for longer."""
_FASTEST_FIRST = 1  # TVM's ThreadGroup::AffinityMode

Result = TypeVar("Result")


class Device:
    """A device, lent until `close`.

    session: TVM's RPCSession.

    Args:
        tracker: "HOST:PORT".
        key: of the device, as its server was started with.
        threads: that it runs functions on.
        wait: seconds to wait for it to become free.

    Raises:
        MeasureError: no tracker, no such device, none free in time, or it can't be reached.
    """

    def __init__(self, tracker: str, key: str, threads: int, wait: float = WAIT) -> None:
        compiler()
        with Tracker(tracker) as asked:
            lease = asked.request(key, wait)
        self.key, self.threads = key, threads
        self.session = self.doing("be reached", lambda: self._connect(lease))

    def _connect(self, lease: Lease) -> Any:
        from tvm import rpc

        session = rpc.connect(lease.host, lease.port, lease.match, session_timeout=SESSION)
        session.get_function("runtime.config_threadpool")(_FASTEST_FIRST, self.threads)
        return session

    def close(self) -> None:
        """Give the device back. What was loaded there is gone."""
        with contextlib.suppress(Exception):  # it may have hung up itself
            self.session.get_function("CloseRPCConnection")()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def doing(self, what: str, action: Callable[[], Result]) -> Result:
        """What an action over the wire returns. Raises MeasureError: the device can't `what`."""
        try:
            return action()
        except GraphwrightError:
            raise
        except Exception as error:  # of tvm_ffi and sockets, which have no base of their own
            why = first_line(error)
            if "SessionTimeout" in type(error).__name__ or "session has expired" in str(error):
                why = f"it took more than the {SESSION:.0f} s of a session"
            raise MeasureError(f"the device {self.key} can't {what}: {why}") from error
