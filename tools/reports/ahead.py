"""The script of a page bundled while its run begins, on a core that nothing else uses yet."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType

from .script import kept, own

_BUNDLE = f"from {__package__}.script import vega; vega()"


class Ahead:
    """A process that bundles Vega where it is not kept; in a `with`, which ends it.

    wanted: whether there will be a page.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if wanted and not own(kept()):
            silent = subprocess.DEVNULL
            words = [sys.executable, "-P", "-c", _BUNDLE]
            self._process = subprocess.Popen(words, stdin=silent, stdout=silent, stderr=silent)

    def wait(self) -> None:
        """Until it is done, so that it runs beside nothing that is timed; a page bundles where it failed."""
        if self._process is not None:
            self._process.wait()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
