"""Builds the C runner: one shared library over ONNX Runtime and TVM's runtime, a header, and a program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ...ir.errors import BackendError
from ..bundles.folder import appearing, check_free

HERE = Path(__file__).parent
LIBRARY, PROGRAM, HEADER = "libgraphwright.so", "graphwright-run", "graphwright.h"
ONNXRUNTIME = "libonnxruntime.so.1"
TVM = ("libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so")
# Products and sums stay two roundings, as NumPy's are: the choice of a graph hangs on them.
_COMMON = ("-O2", "-Wall", "-Wextra", "-fPIC", "-ffp-contract=off", "-fstack-protector-strong")
_HERE = f"-ffile-prefix-map={HERE}=."  # the same bytes wherever it is installed
_LIMIT = 1800  # seconds of a compilation


def build(out: str | Path, compiler: str | None = None) -> Path:
    """Build the runner into a new directory, with the runtimes that are installed beside it.

    Args:
        out: must not exist, or be empty.
        compiler: "system" (c++ or whatever CXX names) or "zig" (the package ziglang); None takes the system's
            where there is one.

    Returns:
        The directory: graphwright.h, libgraphwright.so, graphwright-run, its source and an example in Rust.

    Raises:
        BackendError: no compiler, or one that fails; nothing is left then.
        BundleError: the directory exists, or can't be written.
    """
    target = Path(out)
    check_free(target, force=False)
    c, cxx = _compilers(compiler)
    with appearing(target, force=False) as folder:
        compile_library(folder / LIBRARY, cxx)
        for name in (HEADER, "run.c", "run.rs"):
            shutil.copyfile(HERE / name, folder / name)
        _call([*c, *_COMMON, "-std=c11", "-D_GNU_SOURCE", "run.c", "-o", PROGRAM, *_linked()], folder)
        for place, source in runtimes().items():
            shutil.copyfile(source, folder / place)
    return target


def compile_library(target: Path, cxx: Sequence[str]) -> None:
    """The shared library alone. Raises BackendError with the compiler's first complaint."""
    compile_program(target, cxx, [], ["-shared"])


def compile_program(target: Path, cxx: Sequence[str], more: Sequence[Path], flags: Sequence[str]) -> None:
    """The library's sources and others as one file. Raises as `compile_library`."""
    includes = [f"-I{HERE}", f"-isystem{_headers('nlohmann_json', 'nlohmann-json', 'nlohmann/json.hpp')}"]
    if (found := find_spec("tvm_ffi")) is not None:
        includes.append(f"-isystem{Path(str(found.origin)).parent / 'include'}")
    sources = [*sorted(HERE.glob("*.cpp")), *more]
    line = [*cxx, *_COMMON, _HERE, "-std=c++17", "-fvisibility=hidden", *includes, *flags, *map(str, sources)]
    _call([*line, "-o", str(target.absolute()), "-ldl", "-pthread"], HERE)


def runtimes() -> dict[str, Path]:
    """Name beside the runner -> library, of the runtimes that are installed here."""
    found = {}
    if (spec := find_spec("onnxruntime")) is not None:
        for path in Path(str(spec.origin)).parent.glob("capi/libonnxruntime.so.*"):
            found[ONNXRUNTIME] = path
    for package in ("tvm_ffi", "tvm"):
        if (spec := find_spec(package)) is not None:
            lib = Path(str(spec.origin)).parent / "lib"
            found.update({name: lib / name for name in TVM if (lib / name).is_file()})
    return found


def _compilers(wanted: str | None) -> tuple[list[str], list[str]]:
    """The commands of a C and of a C++ compiler."""
    system = [os.environ.get("CC") or shutil.which("cc"), os.environ.get("CXX") or shutil.which("c++")]
    if wanted != "zig" and all(system):
        return [str(system[0])], [str(system[1])]
    if wanted != "system" and find_spec("ziglang") is not None:
        zig = [sys.executable, "-m", "ziglang"]
        return [*zig, "cc"], [*zig, "c++"]
    mend = "pip install ziglang" if wanted == "zig" else "apt-get install g++, or pip install ziglang"
    raise BackendError(f"there is no C++ compiler here: {mend}")


def _headers(module: str, package: str, header: str) -> Path:
    spec = find_spec(module)
    folder = Path(str(spec.origin)).parent / "include" if spec else Path()
    if not (folder / header).is_file():
        raise BackendError(f"the runner needs the headers of {package}: pip install 'graphwright[runner]'")
    return folder


def _linked() -> list[str]:
    return ["-L.", "-lgraphwright", "-Wl,-rpath,$ORIGIN"]


def _call(line: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=_LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"the compiler {line[0]} can't be run ({error})") from error
    if done.returncode:
        said = [each for each in done.stderr.splitlines() if "error" in each] or done.stderr.splitlines()
        raise BackendError(f"the compiler {line[0]} fails: {said[0] if said else done.returncode}")
