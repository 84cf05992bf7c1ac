"""What a command finds around it: closed streams, poor encodings, signals, nowhere to keep anything."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Any

from ..backends.cache import cache_directory


class Ended(KeyboardInterrupt):
    """A signal that asks a process to end; it ends as Ctrl-C does, so that nothing is left."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name} came, and nothing was written")
        self.status = 128 + number


def prepare() -> None:
    """Make the process one that ends in order and can always print."""
    gc.set_threshold(50_000, 10, 10)  # what a trace makes stays: after each 700 takes 8% of a lowering
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, so that no file of ours becomes stdout
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end)
    _keep_torch_out()


def _end(number: int, _: Any) -> None:
    raise Ended(number)


def _keep_torch_out() -> None:
    """PyTorch makes a cache in TMPDIR as soon as it is imported: it gets a place in ours."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_directory() / "torch"))
