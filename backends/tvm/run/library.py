"""TVM's runtime without its compiler: apache-tvm's shared libraries through tvm_ffi, and nothing else."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ....ir.errors import BackendError
from . import versions


@cache
def runtime() -> Any:
    """The module tvm_ffi, with TVM's runtime functions registered.

    `import tvm` would load the compiler as well: 0.5 s and 150 MB that running needs nothing of.

    Raises:
        BackendError: apache-tvm is missing or of another version, or its libraries can't be loaded.
    """
    versions.check()
    found = find_spec("tvm")
    folder = Path(str(found.origin)).parent / "lib" if found else Path()
    try:
        with _without_torch():
            import tvm_ffi
        ctypes.CDLL(str(folder / "libtvm_runtime.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libtvm_runtime_extra.so"))  # sorting, which Relax calls
    except (ImportError, OSError) as error:
        raise BackendError(
            f"TVM's runtime can't be loaded ({error}): pip install --force-reinstall 'graphwright[tvm]'"
        ) from error
    # What a callback raises comes through C++ as the same only where its class is known; as a RuntimeError,
    # Ctrl-C would be taken for a schedule that does not fit.
    for kind in (KeyboardInterrupt, MemoryError, BackendError):
        tvm_ffi.register_error(kind.__name__, kind)
    return tvm_ffi


@cache
def compiler() -> Any:
    """The module tvm, with what this package registers in it.

    Raises:
        BackendError: as `runtime`.
    """
    runtime()
    with _without_torch():
        import tvm
    from ..schedule import legal

    legal.register()
    return tvm


class _NoTorch(MetaPathFinder):
    """Tells the thread that made it that there is no torch."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "torch" and threading.get_ident() == self.thread:
            raise ModuleNotFoundError("torch is left alone", name=name)


@contextmanager
def _without_torch() -> Iterator[None]:
    """TVM imports torch wherever it is installed, for what isn't used here: 2 s and 200 MB."""
    finder = _NoTorch()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
