"""Candidates of a search, compiled in a process that may hang or crash: `python -m
graphwright.backends.tvm.tune.candidates`.

LLVM needs minutes for some schedules (everything unrolled), and cannot be interrupted. Requests come as JSON
lines on stdin, each answered by a line on stdout; the process ends when its parent closes stdin or dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from ....ir.host.temporary import TemporaryFolder
from ...target import detect
from ..machine.link import link
from ..run.library import compiler

SECONDS = 10.0
"""Longer than this no candidate is worth."""


class Builder:
    """Compiles modules of one function, "main", into functions of this process.

    Each artifact has a directory of its own below one temporary directory, which goes with the builder.

    Args:
        llvm: the tvm.target.Target.
        seconds: after which a candidate is given up.
    """

    def __init__(self, llvm: Any, seconds: float = SECONDS) -> None:
        self._target = json.dumps(_plain(llvm.export()))
        self._seconds = seconds
        self._folder = TemporaryFolder()
        self._process: subprocess.Popen[bytes] | None = None
        self._built = 0

    def build(self, module: Any) -> Any:
        """The compiled function; None where it takes too long or can't be compiled."""
        import tvm

        self._built += 1
        folder = Path(self._folder.name, str(self._built))
        folder.mkdir()
        path = folder / "candidate.so"
        request = {"module": tvm.ir.save_json(module), "target": self._target, "path": str(path)}
        if not self._ask(json.dumps(request).encode() + b"\n"):
            return None
        return tvm.runtime.load_module(str(path))["main"]

    def _ask(self, request: bytes) -> bool:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], self._seconds)
            answer = process.stdout.readline() if ready else b""
        except BrokenPipeError:
            answer = b""
        if not answer:  # still at it, or dead: the next candidate finds a new process
            self._end()
        return answer == b"true\n"

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "graphwright.backends.tvm.tune.candidates"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the parent, which then ends it
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it has imported what it needs
        return self._process

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._process = None

    def __enter__(self) -> Builder:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._folder.cleanup()


def _plain(value: Any) -> Any:
    """A target's own description as JSON can hold it."""
    if isinstance(value, str | int | float | bool):
        return value
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value]


def main() -> None:
    """The process: builds until its parent is gone."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests: queue.Queue[dict[str, str]] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    tvm = compiler()
    channel.write("ready\n")
    channel.flush()
    while True:
        channel.write(json.dumps(_compiled(tvm, requests.get())) + "\n")
        channel.flush()


def _listen(requests: queue.Queue[dict[str, str]]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)


def _compiled(tvm: Any, request: dict[str, str]) -> bool:
    from ..schedule.indices import flattening_right

    target = tvm.target.Target(json.loads(request["target"]))
    try:
        module = flattening_right(tvm.ir.load_json(request["module"]))
        executable = tvm.compile(module, target=target)
        link(executable, Path(request["path"]), detect().arch)
    except Exception:  # whatever a candidate fails with, it is no candidate
        return False
    return True


if __name__ == "__main__":
    main()
