from pathlib import Path

import pytest
from graphwright.backends import target
from graphwright.backends.target import KIB, MIB, detect, named, pick_cpus
from graphwright.ir.errors import GraphwrightError

CPUINFO = """processor\t: 0
model name\t: Example 9000
flags\t\t: fpu sse2 avx avx2 fma f16c avx512f avx512_vnni pdpe1gb

processor\t: 1
model name\t: Example 9000
flags\t\t: fpu
"""


@pytest.fixture
def machine(monkeypatch):
    """A machine of four threads on two cores, made of files."""
    files = {"/proc/cpuinfo": CPUINFO}
    monkeypatch.setattr(target, "_read", lambda path: files.get(str(path), "").strip())
    monkeypatch.setattr(target, "allowed_cpus", lambda: (0, 1, 2, 3))
    for cpu in range(4):
        root = f"/sys/devices/system/cpu/cpu{cpu}"
        files[f"{root}/topology/thread_siblings_list"] = "0,2" if cpu in (0, 2) else "1,3"
        for index, (level, kind, size, shared) in enumerate(
            [("1", "Data", "48K", str(cpu)), ("1", "Instruction", "32K", str(cpu)),
             ("2", "Unified", "2M", ""), ("3", "Unified", "16M", "0,2" if cpu in (0, 2) else "1,3")]
        ):  # fmt: skip
            for name, text in zip(
                ("level", "type", "size", "shared_cpu_list"), (level, kind, size, shared), strict=True
            ):
                files[f"{root}/cache/index{index}/{name}"] = text
    monkeypatch.setattr(
        Path,
        "glob",
        lambda self, pattern: [self / f"index{i}" for i in range(4)] if "cache" in str(self) else [],
    )
    return files


def test_detects_cores_isa_and_caches(machine, monkeypatch):
    monkeypatch.setattr(target.platform, "machine", lambda: "x86_64")
    found = detect()
    assert (found.cores, found.threads) == (2, 4)
    assert found.isa == {"avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni"}
    assert (found.l1d, found.l2, found.l3) == (48 * KIB, 2 * MIB, 32 * MIB)
    assert found.model == "Example 9000"
    assert found.vnni


def test_pins_to_distinct_cores_first(machine):
    assert pick_cpus(1) == (0,)
    assert pick_cpus(2) == (0, 1)
    assert pick_cpus(3) == (0, 1, 2)
    assert pick_cpus(9) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("granted", "cores", "threads"), [(None, 2, 4), (3.5, 2, 3), (1.9, 1, 1), (0.2, 1, 1)]
)
def test_a_container_s_share_of_time_bounds_the_threads(machine, monkeypatch, granted, cores, threads):
    monkeypatch.setattr(target, "quota", lambda: granted)
    assert (detect().cores, detect().threads) == (cores, threads)


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_a_machine_without_proc_and_sys_is_still_described(machine, monkeypatch, system):
    machine.clear()
    monkeypatch.setattr(target.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(target.platform, "system", lambda: system)
    monkeypatch.delattr(target.os, "sched_getaffinity", raising=False)
    found = detect()
    assert found.arch == "aarch64"
    assert "neon" in found.isa
    assert (found.cores, found.l2) == (4, 0)


def test_aarch64_features_are_named(machine, monkeypatch):
    machine["/proc/cpuinfo"] = "processor : 0\nFeatures : fp asimd aes asimddp i8mm\n"
    monkeypatch.setattr(target.platform, "machine", lambda: "aarch64")
    assert detect().isa == {"neon", "dotprod", "i8mm"}
    assert detect().vnni


def test_the_real_machine_is_detected():
    found = named("host")
    assert found.name == "host"
    assert 1 <= found.cores <= found.threads


def test_named_targets_differ_by_isa():
    assert not named("x86-64-avx2").vnni
    assert not named("x86-64-avx512").vnni
    assert named("x86-64-vnni").isa - named("x86-64-avx512").isa == {"avx512_vnni"}
    assert named("aarch64-dotprod").vnni
    assert not named("aarch64-neon").vnni


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(GraphwrightError, match="no target 'x86-avx2'; did you mean 'x86-64-avx2'"):
        named("x86-avx2")
    with pytest.raises(
        GraphwrightError, match=r"there are: aarch64-dotprod, .*, host, x86-64-amx, x86-64-avx2"
    ):
        named("riscv")


def test_json_is_stable():
    assert named("x86-64-avx2").to_json()["isa"] == ["avx", "avx2", "f16c", "fma"]
