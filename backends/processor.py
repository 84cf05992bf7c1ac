"""Whether this processor can run what was compiled: an instruction that it lacks would kill the process."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path

from ..ir.errors import BundleError
from ..ir.host.tile_permission import permitted


def check(arch: str, needs: Sequence[str]) -> None:
    """Refuse functions compiled for another processor; asks the system for what it must permit.

    Args:
        arch: "x86_64" or "aarch64".
        needs: instruction sets, as `plain` spells them.

    Raises:
        BundleError: naming what the processor lacks, or the system refuses.
    """
    here = architecture()
    if arch != here:
        raise BundleError(
            f"the bundle was built for {arch} and this machine is {here}: build it for this one"
        )
    if lacking := lacks(needs, offered(here)):
        raise BundleError(
            f"the bundle was built for a processor with {', '.join(lacking)}, which this one lacks: "
            "build it on this machine, or for it with --target"
        )
    if "amxtile" in needs and not permitted():
        raise BundleError(
            "the bundle multiplies in AMX's tiles, which the system does not let this process use "
            "(arch_prctl refuses XTILEDATA): build it on this machine, or with --target x86-64-bf16"
        )


def architecture() -> str:
    """This machine's: "x86_64", "aarch64", ..."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def lacks(needs: Sequence[str], has: frozenset[str]) -> list[str]:
    """What of some instruction sets is not there; nothing where the system does not tell what is."""
    return [name for name in needs if name not in has] if has else []


def usable(arch: str) -> frozenset[str]:
    """What of `offered` the system permits; it is asked."""
    found = offered(arch)
    if "amxtile" not in found or permitted():
        return found
    return frozenset(name for name in found if not name.startswith("amx"))


def offered(arch: str) -> frozenset[str]:
    """This processor's instruction sets, spelled by `plain`; none where the system does not tell."""
    field = "Features" if arch == "aarch64" else "flags"  # an emulator may show the file of its host
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return frozenset()
    found = re.search(rf"(?m)^{field}\s*:(.*)$", text)
    return frozenset(map(plain, found[1].split())) if found else frozenset()


def plain(name: str) -> str:
    """One spelling of LLVM's avx512vp2intersect and sse4.1, and Linux's avx512_vp2intersect and sse4_1."""
    return re.sub(r"[-_.]", "", name)
