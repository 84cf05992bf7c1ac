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

    Raises:
        MeasureError: it could not load; the message ends with the last line it wrote.
    """

    def __init__(self, name: str, kind: str, path: Path, threads: int) -> None:
        self.name = name
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
            self.ask(do="load", kind=kind, path=str(path.absolute()), threads=threads, cpus=list(cpus))
        except BaseException:
            self.close()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """The worker's answer. Raises MeasureError when it ends instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
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
