"""AMX's instructions on a processor without them: each is carried out where it faults (amx.c)."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from graphwright.backends.target import detect
from graphwright.backends.tvm.machine.link import linker
from graphwright.ir.host.temporary import TemporaryFolder

SOURCE = Path(__file__).with_suffix(".c")


@cache
def _library() -> ctypes.CDLL:
    # x86's own flags: what fmaf and the rest compile to may not fault in the handler.
    with TemporaryFolder() as folder:
        path = Path(folder, "amx.so")
        words = ["-O2", "-mfma", "-ffp-contract=off", "-fPIC", "-shared", SOURCE, "-o", path, "-lm"]
        subprocess.run([*linker(detect().arch), *map(str, words)], check=True)
        return ctypes.CDLL(str(path))


@contextmanager
def emulated() -> Iterator[ctypes.CDLL]:
    """Within, threads of this process have AMX; what is yielded counts instructions, and tiles given back.

    A processor's own AMX, where it has it and Linux permits it, does not fault: nothing is counted then.
    """
    library = _library()
    library.amx_done.restype = library.amx_released.restype = ctypes.c_long
    library.amx_begin()
    try:
        yield library
    finally:
        library.amx_end()
