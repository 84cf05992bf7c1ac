"""Linux's permission for AMX's tile registers, which a process asks for once. Standard library only."""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache

_ARCH_PRCTL, _REQUEST, _XTILEDATA = 158, 0x1023, 18


@cache
def permitted() -> bool:
    """Whether this process may use them: asks at the first call, for all threads and whatever it forks.

    Without permission the first instruction kills the process.

    Reference: Linux, Documentation/arch/x86/xstate.rst (ARCH_REQ_XCOMP_PERM).
    """
    if sys.platform != "linux" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _XTILEDATA) == 0)
