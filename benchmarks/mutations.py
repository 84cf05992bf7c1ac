"""Inputs that nobody meant to write, 5,000 of them: each is taken, or refused in one sentence, in bounds.

    python benchmarks/mutations.py [--cases 5000] [--kinds onnx,config] [--seed 0] [--out FILE.jsonl]

Cases run in a process that is watched, a fresh one after a crash or a hang. Over 5 s are 5 seconds of the
processor, since the machine is shared, or 20 by the clock; over 1 GB is memory beside what the process held.
What was found is appended to FILE, a line a case, and cases that are in it are not run again. A case comes
back by its kind and number: `--only onnx:17`.
"""

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

SECONDS, BYTES = 5.0, 1 << 30
FAULTS = ("accepted", "unexpected", "over 5 s", "over 1 GB", "crashed", "left behind")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--kinds", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="appended to, a line a case")
    parser.add_argument("--only", default="", help="KIND:NUMBER, in this process, with its traceback")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(Path(given.serve))
        return
    from mutation import KINDS

    kinds = given.kinds.split(",") if given.kinds else list(KINDS)
    with tempfile.TemporaryDirectory(prefix="graphwright-mutations-") as folder:
        bundles = built(Path(folder))
        if given.only:
            from mutation import Material

            kind, number = given.only.split(":")
            place = Path(folder, "alone")
            place.mkdir()
            print(Material(place, bundles, native=True).said(kind, int(number)))
            return
        cases = [(kind, given.seed + n) for n in range(-(-given.cases // len(kinds))) for kind in kinds]
        table(remembered(Path(folder), cases[: given.cases], given.out))


def built(folder):
    """Bundles for both runtimes, of the smallest encoder."""
    from graphwright.backends.bundles.bundle import Variant, write
    from graphwright.backends.tvm.backend import Tvm
    from graphwright.backends.tvm.run.artifact import write_compiled
    from mutation import program_of

    program = program_of(folder / "base.onnx")
    compiled = Tvm().build(program, threads=1, buckets=[{"batch": 1, "length": 4}])
    return [
        write(folder / "graph", [Variant("only", program)]),
        write_compiled(folder / "compiled", compiled),
    ]


def remembered(folder, cases, out):
    """As `tried`; cases that a file holds come from there, and the others go to it."""
    if out is None:
        yield from tried(folder, cases)
        return
    wanted = set(cases)
    rows = [tuple(json.loads(line)) for line in out.read_text().splitlines()] if out.exists() else []
    rows = [row for row in rows if row[:2] in wanted]
    yield from rows
    known = {row[:2] for row in rows}
    with out.open("a") as file:
        for row in tried(folder, [case for case in cases if case not in known]):
            print(json.dumps(row), file=file, flush=True)
            yield row


def tried(folder, cases):
    """(kind, number, verdict, what was said) of every case."""
    process, number, started = None, 0, 0
    for kind, seed in cases:
        if process is None:
            started += 1
            process = start(folder, started)
            answer(process, 120.0)  # imports
        number += 1
        process.stdin.write(f"{kind} {seed}\n")
        process.stdin.flush()
        began = time.monotonic()
        found = answer(process, 4 * SECONDS)
        if found is None:
            code = process.poll()
            verdict = "over 5 s" if code is None else "crashed"
            process.kill()
            process.wait()
            process = None
            yield kind, seed, verdict, f"{time.monotonic() - began:.0f} s, status {code}"
            continue
        yield kind, seed, found["verdict"], found["said"]
        if number % 500 == 0:
            print(f"{number} cases", file=sys.stderr, flush=True)
    if process is not None:
        process.kill()


def start(folder, number):
    place = folder / f"served-{number}"
    place.mkdir()
    return subprocess.Popen(
        [sys.executable, __file__, "--serve", str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def answer(process, seconds):
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    line = process.stdout.readline() if ready else ""
    return json.loads(line) if line else None


def serve(folder):
    """Answers a line a case."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from mutation import AcceptedError, Material

    material = Material(folder, [folder.parent / "graph", folder.parent / "compiled"], native=True)
    for kind in ("onnx", "exact", "config", "options", "data"):  # imports are nobody's seconds
        with contextlib.suppress(Exception):
            material.said(kind, -1)
    print(json.dumps({"ready": True}), file=channel, flush=True)
    for line in sys.stdin:
        kind, seed = line.split()
        reset()
        held, began = resident("VmRSS"), time.process_time()
        verdict = said = "taken"
        try:
            sentence = material.said(kind, int(seed))
            verdict, said = ("refused", sentence) if sentence is not None else ("taken", "")
        except AcceptedError as error:
            verdict, said = "accepted", str(error)
        except AssertionError as error:
            verdict, said = "left behind", str(error)
        except BaseException as error:
            verdict, said = "unexpected", f"{type(error).__name__}: {error} {traceback.format_exc(limit=-2)}"
        out = folder / "case" / "out"
        if out.exists() and not (out / "manifest.json").is_file():
            verdict, said = "left behind", "half a bundle"
        if time.process_time() - began > SECONDS:
            verdict = "over 5 s"
        elif resident("VmHWM") - held > BYTES:
            verdict = "over 1 GB"
        print(json.dumps({"verdict": verdict, "said": said[:600]}), file=channel, flush=True)


def reset():
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return 0


def table(rows):
    counts, bad = {}, []
    for kind, seed, verdict, said in rows:
        counts.setdefault(kind, Counter())[verdict] += 1
        if verdict in FAULTS:
            bad.append(f"{kind}:{seed} {verdict}: {said}")
    columns = ("taken", "refused", *FAULTS)
    print("| " + " | ".join(("input", *columns)) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for kind, found in counts.items():
        print("| " + " | ".join((kind, *(str(found[column]) for column in columns))) + " |")
    for line in bad:
        print(line)


if __name__ == "__main__":
    main()
