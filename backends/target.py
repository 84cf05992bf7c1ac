"""The hardware a program is built for: cores, instruction sets, caches. Detected, or named."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..ir.errors import GraphwrightError, did_you_mean, short
from ..ir.host.quota import quota
from ..ir.host.tile_permission import permitted
from .processor import plain

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# The kernel's spelling of what a matrix kernel chooses by; every other CPU flag is noise here.
_FLAGS = {
    "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "avx512f": "avx512f",
    "avx512bw": "avx512bw", "avx512vl": "avx512vl", "avx512_vnni": "avx512_vnni", "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16", "amx_int8": "amx_int8", "amx_tile": "amx_tile",
    "amx_bf16": "amx_bf16",
    "asimd": "neon", "neon": "neon", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve",
    "asimdhp": "fp16",
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A machine, as far as lowering and measuring care.

    name: "host" or the name it was asked for by. arch: "x86_64", "aarch64", ... as the kernel spells it.
    isa: avx, avx2, fma, avx512f, avx512_vnni, avx_vnni, amx_int8, neon, dotprod, i8mm, ...
    cores: physical ones this process may use; threads: logical ones. l1d and l2: bytes per core; l3: bytes in
    all; 0 where unknown. memory: bytes of RAM, 0 where unknown. processor: of a host that another machine
    builds for, LLVM's name of it and what it lacks of its kind ("znver4", "-avx512vnni"); else empty.
    """

    name: str
    arch: str
    isa: frozenset[str] = frozenset()
    cores: int = 1
    threads: int = 1
    l1d: int = 0
    l2: int = 0
    l3: int = 0
    memory: int = 0
    model: str = ""
    processor: tuple[str, ...] = ()

    @property
    def bfloat16(self) -> bool:
        """Products of bfloat16 with sums in float32, in vectors."""
        return "avx512_bf16" in self.isa

    @property
    def vnni(self) -> bool:
        """An int8 dot product accumulated in 32 bits."""
        return bool(self.isa & {"avx512_vnni", "avx_vnni", "amx_int8", "dotprod", "i8mm"})

    @property
    def saturates(self) -> bool:
        """Whether products of unsigned by signed 8-bit integers are added in 16 bits, as x86 does without
        VNNI."""
        return self.arch in ("x86_64", "i686") and not self.vnni

    @property
    def needs(self) -> tuple[str, ...]:
        """Its instruction sets as `processor.plain` spells the kernel's names of them."""
        kernel = {ours: linux for linux, ours in reversed(_FLAGS.items())}
        return tuple(sorted(plain(kernel[name]) for name in self.isa))

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON can hold them, for manifests and cache keys."""
        told = {**asdict(self), "isa": sorted(self.isa), "processor": list(self.processor)}
        return told if self.processor else {name: told[name] for name in told if name != "processor"}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Target:
        """Raises what Python does for anything that `to_json` would not have written."""
        processor = tuple(record.get("processor", ()))
        return Target(**{**record, "isa": frozenset(record["isa"]), "processor": processor})


_AVX2 = frozenset({"avx", "avx2", "fma", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512vl"}
_NAMED = {
    "x86-64-avx2": Target("x86-64-avx2", "x86_64", _AVX2, 4, 8, 32 * KIB, 512 * KIB, 16 * MIB, 16 * GIB),
    "x86-64-avx512": Target("x86-64-avx512", "x86_64", _AVX512, 4, 8, 32 * KIB, MIB, 24 * MIB, 16 * GIB),
    "x86-64-vnni": Target(
        "x86-64-vnni", "x86_64", _AVX512 | {"avx512_vnni"}, 4, 8, 48 * KIB, 2 * MIB, 32 * MIB, 16 * GIB
    ),
    "x86-64-bf16": Target(
        "x86-64-bf16", "x86_64", _AVX512 | {"avx512_vnni", "avx512_bf16"},
        4, 8, 32 * KIB, MIB, 32 * MIB, 16 * GIB,
    ),
    "x86-64-amx": Target(
        "x86-64-amx", "x86_64",
        _AVX512 | {"avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"},
        4, 8, 48 * KIB, 2 * MIB, 64 * MIB, 16 * GIB,
    ),
    "aarch64-neon": Target(
        "aarch64-neon", "aarch64", frozenset({"neon"}), 4, 4, 32 * KIB, 512 * KIB, 2 * MIB, 4 * GIB
    ),
    "aarch64-dotprod": Target(
        "aarch64-dotprod", "aarch64", frozenset({"neon", "dotprod", "fp16"}),
        4, 4, 64 * KIB, MIB, 32 * MIB, 16 * GIB,
    ),
}  # fmt: skip

NAMES = tuple(_NAMED)
"""Targets that can be named beside "host"."""


def named(name: str) -> Target:
    """A target by name: "host" for this machine, or a typical machine with that instruction set.

    Raises:
        GraphwrightError: there is no such target; the message has the nearest name.
    """
    if name == "host":
        return detect()
    if name in _NAMED:
        return _NAMED[name]
    raise GraphwrightError(f"there is no target {name!r}{did_you_mean(name, ['host', *_NAMED])}")


def detect() -> Target:
    """This machine, as far as this process may use it (affinity and container limits count)."""
    info = _cpuinfo()
    allowed = allowed_cpus()
    l1d, l2, l3 = _caches(allowed)
    machine = platform.machine().lower()
    return Target(
        name="host",
        arch={"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine),
        isa=_isa(info),
        cores=min(len(_one_per_core(allowed)), usable_threads()),
        threads=usable_threads(),
        l1d=l1d,
        l2=l2,
        l3=l3,
        memory=_memory(),
        model=info.get("model name", "") or platform.processor(),
    )


def allowed_cpus() -> tuple[int, ...]:
    """The logical CPUs this process may run on, in order."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def usable_threads() -> int:
    """Threads that find a CPU each: the CPUs allowed, within the time that the container's group grants."""
    granted = quota()
    here = len(allowed_cpus())
    return here if granted is None else max(1, min(here, int(granted)))


def most_threads() -> int:
    """Four for each logical CPU that this process may use: more would only wait for each other."""
    return 4 * len(allowed_cpus())


def check_threads(threads: int) -> None:
    """Raises GraphwrightError for a number of threads that is none, or that this machine is not to start."""
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= most_threads():
        raise GraphwrightError(
            f"threads: {short(threads)} was given; name a number from 1 to {most_threads()}, four for each "
            "CPU that this process may use"
        )


def pick_cpus(threads: int) -> tuple[int, ...]:
    """`threads` logical CPUs to pin to: one per physical core as far as they go, then their siblings."""
    allowed = allowed_cpus()
    first = _one_per_core(allowed)
    return tuple(sorted((*first, *(cpu for cpu in allowed if cpu not in first))[:threads]))


def _one_per_core(cpus: Iterable[int]) -> list[int]:
    taken: set[str] = set()
    firsts = []
    for cpu in cpus:
        core = _read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        if core not in taken:
            taken.add(core)
            firsts.append(cpu)
    return firsts


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _cpuinfo() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo; empty off Linux."""
    lines = _read("/proc/cpuinfo").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _isa(info: dict[str, str]) -> frozenset[str]:
    flags = (info.get("flags") or info.get("Features") or "").split()
    known = frozenset(_FLAGS[flag] for flag in flags if flag in _FLAGS)
    if "amx_tile" in known and not permitted():
        known = frozenset(name for name in known if not name.startswith("amx"))
    if not known and platform.machine().lower() in ("arm64", "aarch64"):
        known = frozenset({"neon", "dotprod"} if platform.system() == "Darwin" else {"neon"})
    return known


def _caches(cpus: tuple[int, ...]) -> tuple[int, int, int]:
    """(L1 data, L2) of the first CPU and the L3s that `cpus` reach, each counted once."""
    l1d = l2 = 0
    l3: dict[str, int] = {}
    for cpu in cpus:
        for index in sorted(Path(f"/sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
            level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
            if not (found := re.fullmatch(r"(\d+)([KMG]?)", size)):
                continue
            amount = int(found[1]) * {"": 1, "K": KIB, "M": MIB, "G": GIB}[found[2]]
            if level == "1" and kind == "Data":
                l1d = l1d or amount
            elif level == "2":
                l2 = l2 or amount
            elif level == "3":
                l3[_read(index / "shared_cpu_list")] = amount
    return l1d, l2, sum(l3.values())


def _memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0
