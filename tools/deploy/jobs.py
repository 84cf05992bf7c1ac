"""Starts a worker for one build and waits for its answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...ir.errors import GraphwrightError
from ...ir.host.temporary import TemporaryFolder

ENDS = 20.0  # seconds that a worker has to tidy up when it is told to end


def done(asked: Mapping[str, Any], tuning: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a worker answers.

    Args:
        asked: as worker.py takes it.
        tuning: what the worker's cache holds, file name -> content; None is the user's own cache.

    Raises:
        GraphwrightError: the build failed, with its sentence; or the process ended without an answer.
    """
    if tuning is None:
        return _asked(asked, {})
    with TemporaryFolder() as folder:
        for name, content in tuning.items():
            if content:
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, "utf-8")
        return _asked(asked, {"GRAPHWRIGHT_CACHE": folder})


def _asked(asked: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    process = subprocess.Popen(
        # -P: the user's working directory must not shadow modules.
        [sys.executable, "-P", "-m", "graphwright.tools.deploy.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        lines = process.stdout.read().strip().splitlines()
        code = process.wait()
    except BrokenPipeError:
        lines, code = [], process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        process.stdout.close()
    try:
        answer = json.loads(lines[-1]) if lines else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        killed = f"was killed by signal {-code}{' (out of memory?)' if code == -9 else ''}"
        raise GraphwrightError(f"its process {killed if code < 0 else f'ended with status {code}'}")
    if "error" in answer:
        raise GraphwrightError(answer["error"])
    return answer


def _end(process: subprocess.Popen[str]) -> None:
    """Let it put things in order, but not for ever."""
    process.terminate()
    try:
        process.wait(ENDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
