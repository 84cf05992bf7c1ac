"""Linux is asked for AMX's tiles once, as its documentation says, and what it refuses nobody has."""

import ctypes
from pathlib import Path

import pytest
from graphwright.backends import processor, target
from graphwright.ir.errors import BundleError
from graphwright.ir.host import tile_permission

FLAGS = "avx avx2 fma f16c avx512f avx512bw avx512vl avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16"


@pytest.fixture
def asked(monkeypatch):
    """What is asked of a system whose answer `asked.answer` is."""

    class System:
        calls, answer = [], 0

        def syscall(self, *arguments):
            self.calls.append(arguments)
            return self.answer

    system = System()
    system.calls = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: system)
    monkeypatch.setattr(tile_permission.platform, "machine", lambda: "x86_64")
    tile_permission.permitted.cache_clear()
    yield system
    tile_permission.permitted.cache_clear()


@pytest.mark.parametrize(("answer", "has"), [(0, True), (-1, False)])
def test_a_machine_has_the_tiles_that_the_system_permits(asked, monkeypatch, answer, has):
    asked.answer = answer
    monkeypatch.setattr(target, "_cpuinfo", lambda: {"flags": FLAGS})
    for _ in range(2):
        isa = target.detect().isa
        assert ({"amx_tile", "amx_int8", "amx_bf16"} <= isa) == has
        assert bool([name for name in isa if name.startswith("amx")]) == has
        assert "avx512_bf16" in isa
    assert asked.calls == [(158, 0x1023, 18)]


def test_without_the_instructions_nothing_is_asked(asked, monkeypatch):
    monkeypatch.setattr(target, "_cpuinfo", lambda: {"flags": "avx avx2"})
    target.detect()
    assert not asked.calls


def test_what_needs_tiles_is_refused_without_permission(asked, monkeypatch):
    monkeypatch.setattr(processor, "offered", lambda arch: frozenset({"avx2", "amxtile"}))
    processor.check("x86_64", ("avx2",))
    assert not asked.calls
    processor.check("x86_64", ("avx2", "amxtile"))
    assert len(asked.calls) == 1
    asked.answer = -1
    tile_permission.permitted.cache_clear()
    with pytest.raises(BundleError, match=r"does not let this process use .*: build it on this machine, or"):
        processor.check("x86_64", ("avx2", "amxtile"))


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="nothing says what the processor has")
def test_this_system_permits_no_tiles_that_the_processor_lacks():
    if "amx_tile" not in Path("/proc/cpuinfo").read_text():
        assert not tile_permission.permitted()
