"""An aarch64 machine for tests: qemu-user, Debian's aarch64 C library, TVM's own aarch64 runtime.

`python tests/support/emulated.py` installs what is missing; `make test` does so first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from graphwright.backends.tvm.run.versions import PINS

PACKAGES = ("qemu-user", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "libstdc++6-arm64-cross")
ROOT = Path("/usr/aarch64-linux-gnu")
HOME = Path(sys.prefix) / f"aarch64-{PINS['apache-tvm']}"
SOURCE = Path(__file__).with_suffix(".c")
CALLER = HOME / f"run-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
LIBRARIES = ("libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so")
KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}  # DLDataTypeCode


def missing() -> str | None:
    """What an emulated machine lacks, in a sentence; None where it is whole."""
    if not _system():
        return f"tests of aarch64 need Debian's packages: apt-get install {' '.join(PACKAGES)}"
    if not CALLER.exists():
        return "tests of aarch64 need TVM's aarch64 runtime: run python tests/support/emulated.py"
    return None


def _system() -> bool:
    """Whether Debian's packages are here."""
    tools = all(map(shutil.which, ("qemu-aarch64", "aarch64-linux-gnu-gcc")))
    return tools and (ROOT / "lib" / "libstdc++.so.6").exists()


def call(
    library: Path, function: str, arrays: Sequence[np.ndarray], cpu: str = "max", threads: int = 2
) -> list[np.ndarray]:
    """What a function of an aarch64 library returns there; of a plain kernel, its arguments after the call.

    cpu: as qemu names them: cortex-a53 has NEON, cortex-a76 dot products too, max all that qemu knows.

    Raises:
        RuntimeError: the emulated process failed; with its last words.
    """
    if lacking := missing():
        raise RuntimeError(lacking)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "in"), Path(folder, "out")
        given.write_bytes(b"".join(map(_written, arrays)))
        line = ["qemu-aarch64", "-cpu", cpu, "-L", ROOT, "-E", f"LD_LIBRARY_PATH={HOME}:{ROOT}/lib"]
        line += ["-E", f"TVM_NUM_THREADS={threads}", CALLER, library, function, given, made]
        done = subprocess.run([str(word) for word in line], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(f"status {done.returncode}: {done.stderr.strip()[-500:]}")
        return _read(made.read_bytes())


def _written(array: np.ndarray) -> bytes:
    array = np.ascontiguousarray(array)
    head = np.array([KINDS[array.dtype.kind], array.dtype.itemsize * 8, array.ndim], np.int32)
    return head.tobytes() + np.array(array.shape, np.int64).tobytes() + array.tobytes()


def _read(content: bytes) -> list[np.ndarray]:
    arrays, at = [], 0
    while at < len(content):
        code, bits, ndim = np.frombuffer(content, np.int32, 3, at)
        shape = np.frombuffer(content, np.int64, ndim, at + 12)
        kind = next(kind for kind, number in KINDS.items() if number == code)
        dtype = np.dtype(bool if kind == "b" else f"{kind}{bits // 8}")
        at += 12 + 8 * int(ndim)
        arrays.append(np.frombuffer(content, dtype, int(np.prod(shape)), at).reshape(shape))
        at += arrays[-1].nbytes
    return arrays


def install() -> None:
    """Debian's packages where this user may install them, TVM's runtime, and the program that calls it."""
    if not _system() and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-qq"], check=False, **quiet)
        words = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
        subprocess.run(words, check=False, **quiet)
    if not all((HOME / name).exists() for name in LIBRARIES):
        _fetch_runtime()
    if missing() and _system():
        _build_caller()


def _fetch_runtime() -> None:
    """The libraries in the aarch64 wheels of the TVM that is pinned."""
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
        pip += ["--only-binary=:all:", "--python-version", "3.11", "--disable-pip-version-check"]
        pip += ["--platform", "manylinux_2_28_aarch64", *(f"{name}=={pin}" for name, pin in PINS.items())]
        subprocess.run(pip, check=True)
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as packed:
                for name in packed.namelist():
                    if name.rpartition("/")[2] in LIBRARIES:
                        (HOME / name.rpartition("/")[2]).write_bytes(packed.read(name))


def _build_caller() -> None:
    from graphwright.backends.target import named
    from graphwright.backends.tvm.machine.link import linker
    from tvm_ffi import libinfo

    arch = named("aarch64-dotprod").arch
    paths = {libinfo.find_include_path(), libinfo.find_dlpack_include_path()}
    words = ["-O1", *(f"-I{path}" for path in paths), SOURCE]
    words += [HOME / "libtvm_ffi.so", "-ldl", "-Wl,--allow-shlib-undefined", "-o", CALLER]
    subprocess.run([*linker(arch), *map(str, words)], check=True)


if __name__ == "__main__":
    install()
    if lacking := missing():
        sys.exit(f"{lacking} (they could not be installed here)")
