"""What LLVM is told about a target, and that functions for another processor are refused before they run."""

import pytest
from graphwright.backends import processor
from graphwright.backends.target import NAMES, Target, detect, named
from graphwright.backends.tvm.machine.llvm_target import llvm_target, needs
from graphwright.backends.tvm.run.library import compiler
from graphwright.ir.errors import BackendError, BundleError

SPELLED = {
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "fp16": "fullfp16",
}  # differently by LLVM


@pytest.mark.parametrize("name", NAMES)
def test_llvm_has_the_instruction_sets_of_a_named_target_and_no_others(name):
    compiler()
    from tvm.target import codegen

    target = named(name)
    llvm = llvm_target(target, 3)
    features = {str(feature) for feature in codegen.llvm_get_cpu_features(llvm)}
    every = {name for each in NAMES for name in named(each).isa}
    assert {name for name in every if SPELLED.get(name, name) in features} == target.isa
    assert int(llvm.attrs["num-cores"]) == 3


def test_tiles_are_needed_only_where_a_kernel_has_them():
    llvm = llvm_target(named("x86-64-amx"), 2)
    assert not [name for name in needs(llvm) if name.startswith("amx")]
    assert set(needs(llvm, tiles=True)) - set(needs(llvm)) == {"amxtile", "amxint8", "amxbf16"}


def test_this_machine_can_run_what_is_built_for_it():
    found = needs(llvm_target(detect(), 2))
    assert found
    assert processor.offered(detect().arch)
    processor.check(detect().arch, found)


def test_what_a_hypervisor_hides_is_not_used(monkeypatch):
    tvm = compiler()
    real = tvm.get_global_func

    def hidden(name):
        if name.endswith("GetHostCPUName"):
            return lambda: "znver5"
        return (lambda: {"avx512f": False, "avx512vnni": False}) if name.endswith("Features") else real(name)

    monkeypatch.setattr(tvm, "get_global_func", hidden)
    found = needs(llvm_target(Target("host", "x86_64"), 2))
    assert "avx2" in found
    assert not [name for name in found if name.startswith("avx512")]


def test_what_the_processor_lacks_is_named(monkeypatch):
    monkeypatch.setattr(processor, "offered", lambda arch: frozenset({"avx", "avx2", "fma"}))
    processor.check(detect().arch, ("avx2", "fma"))
    with pytest.raises(
        BundleError, match="a processor with avx512f, avx512vnni, which this one lacks: build"
    ):
        processor.check(detect().arch, ("avx2", "avx512f", "avx512vnni"))


def test_another_architecture_is_refused():
    other = "x86_64" if detect().arch == "aarch64" else "aarch64"
    with pytest.raises(BundleError, match=f"built for {other} and this machine is"):
        processor.check(other, ())
    with pytest.raises(BackendError, match="builds for x86_64 and aarch64, not for riscv64"):
        llvm_target(Target("host", "riscv64"), 2)


@pytest.mark.parametrize(
    ("arch", "text", "found"),
    [
        ("x86_64", "flags\t\t: fma avx512_vnni sse4_1\nflags\t\t: other\n", {"fma", "avx512vnni", "sse41"}),
        ("aarch64", "Features\t: asimd asimddp\n", {"asimd", "asimddp"}),
        ("aarch64", "flags\t\t: fma avx2\n", set()),  # qemu-user may show its host's file
    ],
)
def test_instruction_sets_are_read_as_the_kernel_writes_them(monkeypatch, arch, text, found):
    monkeypatch.setattr(processor.Path, "read_text", lambda *_, **__: text)
    assert processor.offered(arch) == found
