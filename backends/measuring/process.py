"""A contestant seen from the measuring side: started, asked, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ...ir.errors import MeasureError
from ..target import allowed_cpus, pick_cpus

KINDS = ("onnxruntime", "bundle", "torch", "torch-compile")


def _started(*words: Any, **options: Any) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(*words, **options)
    except BlockingIOError as error:
        raise MeasureError(
            "no further process can be started to measure in: allow more (ulimit -u, docker --pids-limit)"
        ) from error


class Worker:
    """A process that has loaded one contestant.

    Args:
        name: what messages call it.
        kind: "onnxruntime" (an .onnx file), "bundle", "torch" or "torch-compile" (a Hugging Face directory).
        path: what it loads.
        threads: intra-op threads, on as many CPUs where the machine has more.
        wait: until it has loaded; else whoever asks first does, or calls `ready`.

    Raises:
        MeasureError: it could not load; the message ends with the last line it wrote.
    """

    def __init__(self, name: str, kind: str, path: Path, threads: int, wait: bool = True) -> None:
        self.name = name
        self._loading = True
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        count = str(threads)
        self._process = _started(
            # -P: the user's working directory must not shadow modules.
            [sys.executable, "-P", "-m", "graphwright.backends.measuring.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": count,
                "MKL_NUM_THREADS": count,
                "OPENBLAS_NUM_THREADS": count,
                "TOKENIZERS_PARALLELISM": "false",
                "HF_HUB_OFFLINE": "1",
            },
            start_new_session=True,  # Ctrl-C reaches the parent, which then ends its workers
        )
        cpus = pick_cpus(threads) if len(allowed_cpus()) > threads else ()
        try:
            self._tell(do="load", kind=kind, path=str(path.absolute()), threads=threads, cpus=list(cpus))
            if wait:
                self.ready()
        except BaseException:
            self.close()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """The worker's answer. Raises MeasureError when it ends instead."""
        self.ready()
        self._tell(**request)
        return self._answer()

    def ready(self) -> None:
        """Wait until it has loaded. Raises MeasureError when it ends instead."""
        if self._loading:
            self._answer()
            self._loading = False

    def _tell(self, **request: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise MeasureError(f"{self.name} failed while measuring: {self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        if code < 0:
            return f"it was killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
        return lines[-1].strip() if lines else f"it ended with status {code}"

    def close(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Warmed:
    """A contestant that takes turns: warm when its timed calls begin.

    Before its first turn at a workload come `warm` calls like the timed ones. Before any other it only has to
    settle on its cores again, which calls of the shortest workload do as well as long ones.

    Args:
        worker: a `Worker`, or what answers like one.
        short: file of the shortest call.
    """

    def __init__(self, worker: Any, warm: int, short: str) -> None:
        self._worker, self._warm, self._short = worker, warm, short
        self._called: set[str] = set()

    def time(self, feed: str, runs: int, seconds: float) -> dict[str, Any]:
        """The worker's answer for one turn."""
        warmup = 0 if feed in self._called else self._warm
        self._called.add(feed)
        request = {"runs": runs, "seconds": seconds, "warmup": warmup}
        return self._worker.ask(do="time", feed=feed, settle=self._short, **request)

    def close(self) -> None:
        self._worker.close()
