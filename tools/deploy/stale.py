"""Why what a lock says of a build holds no longer, and whether the bundle is still the one it was."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...backends.bundles.finished import versions
from ...backends.bundles.manifest import MANIFEST
from ...backends.cache import cache_directory
from ...backends.target import Target, detect, named
from ...backends.tvm.machine.link import linker
from ...ir.errors import BackendError
from ..config import RunConfig
from .hashes import Hashes
from .lock import Entry

_TORCH = ("torch", "onnxscript", "transformers")  # have no part in what is made of an .onnx file


def versions_of(config: RunConfig, levels: Sequence[str] = ()) -> dict[str, str]:
    """Of everything that decides a build's bytes, but for Python, of which nothing there is made.

    levels: targets, where there are several.
    """
    compiled = config.backend != "onnxruntime"
    found = versions(("apache-tvm", "apache-tvm-ffi") if compiled else ())
    found.pop("python")
    if config.model.endswith(".onnx"):
        found = {name: each for name, each in found.items() if name not in _TORCH}
    if compiled:
        targets = [named(name) for name in levels or (config.target or "host",)]
        linkers = {each.arch: _linker(each) for each in targets}
        found["linker"] = ", ".join(dict.fromkeys(linkers.values()))
    return found


def _linker(target: Target) -> str:
    try:
        line = [*linker(target.arch), "--version"]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    except (BackendError, OSError, subprocess.TimeoutExpired):
        return "none"  # the build says what is missing
    return (done.stdout.strip().splitlines() or ["unknown"])[0]


def changed(
    entry: Entry, settings: Mapping[str, Any], inputs: Mapping[str, str], versions: Mapping[str, str]
) -> str:
    """The first thing that is not as it was when a build was locked, in a few words; "" where nothing is."""
    for key in sorted({*entry.settings, *settings}):
        if entry.settings.get(key) != settings.get(key):
            return f"the setting {key} has changed"
    for name in sorted({*entry.inputs, *inputs}):
        if entry.inputs.get(name) != inputs.get(name):
            how = "is new" if name not in entry.inputs else "is gone" if name not in inputs else "has changed"
            return f"{name} {how}"
    for name in sorted({*entry.versions, *versions}):
        here, then = versions.get(name, "none"), entry.versions.get(name, "none")
        if here != then:
            return f"{name} is {here} here and was {then}"
    return ""


def elsewhere(entry: Entry) -> str:
    """Why what was decided holds on another machine than this, in a few words; "" where it holds here."""
    for name, content in entry.decisions.tuning.items():
        path = cache_directory() / name
        if (path.read_text("utf-8", "replace") if path.is_file() else "") != content:
            return f"tuned kernels have changed ({path})"
    if entry.target["name"] != "host":
        return ""
    here, then = detect(), Target.from_json(entry.target)
    same = (here.model, here.arch, here.isa, here.cores) == (then.model, then.arch, then.isa, then.cores)
    return "" if same else f"it was built for another machine ({then.model or then.arch}, {then.cores} cores)"


def whole(bundle: Path, entry: Entry, hashes: Hashes) -> bool:
    """Whether a bundle is there, byte for byte what was locked."""
    try:
        if hashes.of(bundle / MANIFEST) != entry.bundle:
            return False
        files = entry.record["files"]
        there = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
        return there == {MANIFEST, *files} and all(
            hashes.of(bundle / name) == each["sha256"] for name, each in files.items()
        )
    except (OSError, ValueError):
        return False
