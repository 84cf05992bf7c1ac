"""One build in a process of its own: whatever ends it, other builds go on. Asked by a line of JSON on stdin.

The last line on stdout is the answer; what a person should read goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...backends.bundles.manifest import MANIFEST, REPORT, sha256
from ...backends.cache import cache_directory
from ...backends.target import Target, named
from ..config import RunConfig, make
from ..console import Console, sentence
from ..surroundings import prepare
from . import coded, several
from .facts import Facts, of_calls, of_run, size_of
from .lock import Decisions, Entry
from .plan import Remote


def main() -> None:
    """Do what stdin asks for. The process ends with whoever asked."""
    prepare()
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch, daemon=True).start()
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    console = Console(quiet=asked["quiet"])
    try:
        with console.working():
            answer = _done(asked, console)
    except Exception as error:
        answer = {"error": sentence(error)}
    print(json.dumps(answer), file=answers, flush=True)


def _watch() -> None:
    """Whoever asked holds the other end; nobody is left to read an answer when it closes."""
    while sys.stdin.readline():
        pass
    os._exit(1)


def _done(asked: dict[str, Any], console: Console) -> dict[str, Any]:
    began = time.monotonic()
    config = make(asked["settings"])
    out = Path(asked["out"])
    if asked["entry"] is not None:
        from .frozen import rebuild

        entry = Entry.from_json(asked["entry"])
        again = several.rebuilt if entry.variants else rebuild
        again(config, asked["source"], entry, out, console)
        return {"seconds": time.monotonic() - began}
    remote = Remote(**asked["remote"]) if asked["remote"] else None

    def built(config: RunConfig, out: Path) -> Entry:
        return _built(config, asked["source"], out, remote, asked["quiet"], console)

    entry = (
        several.built(config, asked["levels"], out, console, built) if asked["levels"] else built(config, out)
    )
    return {"entry": entry.to_json(), "seconds": time.monotonic() - began}


def _built(
    config: RunConfig, source: str, out: Path, remote: Remote | None, quiet: bool, console: Console
) -> Entry:
    """What goes into the lock of a bundle that is now there, but for what was asked for."""
    from ..verbs.optimize import run

    outcome = run(config.model_copy(update={"out": str(out), "force": True}), console, source, recording=True)
    target = named(config.target or "host")
    tuning: dict[str, str] = {}
    if outcome.backend == "tvm":
        target, tuning = _compiled_for(target, outcome.config.threads or 1)
    facts = of_run(outcome.to_json(), target.to_json(), size_of(out))
    if remote is not None:
        facts = _timed_there(facts, out, config, remote, quiet)
    ratios = {key: (each.median, each.low, each.high) for key, each in outcome.replay.ratios.items()}
    decisions = Decisions(ratios, tuple(coded.encoded(outcome.replay.chosen)), tuning)
    return Entry(
        {},
        {},
        {},
        target.to_json(),
        sha256(out / MANIFEST),
        facts,
        decisions,
        (out / MANIFEST).read_bytes(),
        (out / REPORT).read_bytes(),
        outcome.status,
        tuple(outcome.failures),
    )


def _compiled_for(target: Target, threads: int) -> tuple[Target, dict[str, str]]:
    """The target as another machine would have to name it, and the tuned kernels that it was built with."""
    from ...backends.tvm.machine.llvm_target import host_processor, llvm_target
    from ...backends.tvm.tune.schedules import open_schedules
    from ...backends.tvm.tune.tiles import own_file

    if target.name == "host":
        target = replace(target, processor=host_processor())
    files = [own_file(), open_schedules(llvm_target(target, threads)).path]
    home = cache_directory()
    return target, {
        str(path.relative_to(home)): path.read_text("utf-8") if path.is_file() else "" for path in files
    }


def _timed_there(facts: Facts, out: Path, config: RunConfig, remote: Remote, quiet: bool) -> Facts:
    """The facts with times on a device instead of this machine's."""
    from ..verbs.bench import bench_remotely

    bench = bench_remotely(
        [str(out)],
        config.shapes,
        config.threads,
        config.seed,
        Console(quiet=quiet),
        remote.tracker,
        remote.key,
    )
    (row,) = bench.to_json()["contestants"].values()
    return replace(facts, calls=of_calls(row["workloads"]), against="", where=remote.key)


if __name__ == "__main__":
    main()
