"""`optimize build` of three models for three targets: built, again with nothing changed, and frozen.

    python benchmarks/deploy.py [--model DIR] [--rounds 5] [--processor Haswell] [--out DIR]

Models: an encoder (all-MiniLM-L6-v2's directory by default), and two exports of it that `optimize` wrote. The
second run is timed in rounds, as a process; no file is kept from being cached. --processor: a frozen build of
the first bundle under qemu-x86_64 with that processor (Debian's qemu-user), compared file by file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import graphwright
import yaml
from graphwright.tools.deploy import lock, plan, schema
from graphwright.tools.deploy.inputs import source_of
from graphwright.tools.verbs.demo import model_directory

WORKER = "import sys; sys.path[:0] = {path}; from graphwright.tools.deploy.worker import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor", default="")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    home = given.out or Path(tempfile.mkdtemp(prefix="graphwright-deploy-"))
    home.mkdir(parents=True, exist_ok=True)
    file = written(home, given.model or model_directory())
    first, states = timed(file, home / "dist")
    print(f"{len(states)} builds: {first:.0f} s")
    taken = []
    for _ in range(given.rounds):
        seconds, states = timed(file, home / "dist")
        assert set(states.values()) == {"unchanged"}, states
        taken.append(seconds)
    low, high = min(taken), max(taken)
    print(f"nothing changed: {statistics.median(taken):.2f} s [{low:.2f}, {high:.2f}], {given.rounds} rounds")
    shutil.rmtree(home / "frozen", ignore_errors=True)
    seconds, states = timed(file, home / "frozen", "--frozen")
    same = sum(equal(home / "dist" / name, home / "frozen" / name) for name in states)
    print(f"frozen: {seconds:.0f} s, {same} of {len(states)} bundles the same bytes")
    if given.processor:
        name = next(iter(states))
        emulated(file, name, home / "emulated", given.processor)
        alike = equal(home / "dist" / name, home / "emulated" / name)
        print(f"{name} frozen on {given.processor}: {'the same bytes' if alike else 'OTHER bytes'}")


def written(home: Path, model: Path) -> Path:
    """The deployment's file."""
    exported = {}
    for name, pipeline in (("plain", "to-onnx"), ("fused", "to-onnx,fold-constants,fuse-attention")):
        if not (home / name).exists():
            graphwright.optimize(model, home / name, pipeline=pipeline, quick=True, threads=1, shapes="1x16")
        exported[name] = str(home / name / "model.onnx")
    deployment = {
        "defaults": {"threads": 1, "shapes": ["1x16"], "quick": True, "preset": "balanced"},
        "models": {"encoder": str(model), **exported},
        "targets": {"here": "host", "avx2": "x86-64-avx2", "vnni": "x86-64-vnni"},
    }
    path = home / "deploy.yaml"
    path.write_text(yaml.safe_dump(deployment))
    return path


def timed(file: Path, out: Path, *more: str) -> tuple[float, dict[str, str]]:
    """Seconds of the command, and what became of each build."""
    began = time.perf_counter()
    line = [
        str(Path(sys.executable).with_name("optimize")),
        "build",
        str(file),
        "-o",
        str(out),
        "-q",
        "--json",
        *more,
    ]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - began
    found = json.loads(done.stdout)
    return seconds, {each["name"]: each["state"] for each in found["builds"]}


def equal(first: Path, second: Path) -> bool:
    """Whether two directories hold the same files."""
    files = [
        {p.relative_to(d).as_posix(): p.read_bytes() for p in d.rglob("*") if p.is_file()}
        for d in (first, second)
    ]
    return bool(files[0]) and files[0] == files[1]


def emulated(file: Path, name: str, out: Path, processor: str) -> None:
    """Rebuild a bundle from the lock in a Python that qemu runs as that processor would."""
    entry = lock.read(file.with_suffix(".lock"))[name]
    case = next(each for each in plan.cases(schema.read(file)) if each.name == name)
    asked = {
        "settings": plan.settings_of(case.config),
        "source": source_of(case.config),
        "out": str(out / name),
        "entry": entry.to_json(),
        "remote": None,
        "quiet": True,
    }
    code = WORKER.format(path=[path for path in sys.path if path])
    line = ["qemu-x86_64", "-cpu", processor, str(Path(sys.executable).resolve()), "-c", code]
    process = subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()  # and it stays open: the worker ends with whoever asked
    print(f"qemu: {process.stdout.read().strip()[-300:]}")
    process.wait()


if __name__ == "__main__":
    main()
