"""Links compiled functions into a shared library, for this machine or another."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ....ir.errors import BackendError

GLIBC = "2.28"  # what apache-tvm's own libraries need: whatever loads them loads this


def link(executable: Any, path: Path, arch: str) -> None:
    """Writes a shared library that TVM's runtime loads.

    Args:
        executable: what tvm.compile made.
        arch: "x86_64" or "aarch64", what it was compiled for.

    Raises:
        BackendError: there is no linker for the architecture, or it fails.
    """
    command = linker(arch)

    def run(output: str, objects: list[str], **_: Any) -> None:
        # Symbols of TVM's runtime stay undefined until it loads the library.
        line = [*command, "-shared", "-fPIC", "-s", "-o", output, *objects, "-lm"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise BackendError(f"{Path(command[0]).name} cannot link the compiled model: {last}")

    executable.export_library(str(path), fcompile=run)


def linker(arch: str) -> list[str]:
    """The command that links for an architecture: a C compiler's, or zig's where ziglang is installed.

    Raises:
        BackendError: there is none; the sentence says what to install.
    """
    here = arch == platform.machine().lower()
    names = ["cc", "gcc", "clang"] if here else [f"{arch}-linux-gnu-gcc"]
    if here and os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in names:
        if found := shutil.which(name):
            return [found]
    if find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-gnu.{GLIBC}"]
    package = "gcc" if here else f"gcc-{arch.replace('_', '-')}-linux-gnu"
    raise BackendError(
        f"linking for {arch} needs a C compiler: apt install {package}, or pip install 'graphwright[cross]', "
        "which brings ziglang's"
    )
