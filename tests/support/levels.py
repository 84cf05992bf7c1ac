"""Bundles for several instruction sets, and this machine as if it had others."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from graphwright.backends import processor

AVX2 = "fpu sse4_1 sse4_2 ssse3 popcnt movbe avx avx2 fma f16c bmi1 bmi2 aes pclmulqdq"
AVX512 = f"{AVX2} avx512f avx512bw avx512cd avx512dq avx512vl"
VNNI = f"{AVX512} avx512_vnni"
BF16 = f"{VNNI} avx512_bf16"


def pretend(monkeypatch, flags, arch="x86_64"):
    """Every check of the processor in this process finds these flags."""
    monkeypatch.setattr(processor, "architecture", lambda: arch)
    sets = frozenset(map(processor.plain, flags.split()))
    monkeypatch.setattr(processor, "offered", lambda _: sets)


def emulated(root, flags, cpu, line, given=b""):
    """The result of a command that qemu-user runs as a processor, with /proc/cpuinfo as that would have it.

    root: an empty directory, of which qemu takes files first.
    """
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\n")
    words = ["qemu-x86_64", "-cpu", cpu, "-L", root, *line]
    return subprocess.run([str(word) for word in words], input=given, capture_output=True, timeout=300)


def python(code):
    """The command of this Python, for code that imports this package."""
    return [sys.executable, "-c", code]


ANSWER = """
import json
import numpy as np
from graphwright.backends.running.runner import load
bundle = load({bundle!r}, threads=1)
with np.load({feed!r}) as given:
    np.savez({out!r}, **bundle.run(dict(given)))
print(json.dumps(bundle.variant))
"""


def answer_of(folder, bundle, feed):
    """Code that answers a feed with a bundle, and where it leaves what it said."""
    np.savez(folder / "feed.npz", **feed)
    out = folder / f"{Path(bundle).name}.npz"
    return ANSWER.format(bundle=str(bundle), feed=str(folder / "feed.npz"), out=str(out)), out
