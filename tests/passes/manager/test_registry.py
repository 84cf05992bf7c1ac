"""The registry: every row resolves to the pass of its name, says what it does, and needs no torch."""

import subprocess
import sys
from dataclasses import is_dataclass

import pytest
from graphwright.ir.errors import PipelineError
from graphwright.passes.manager import registry
from graphwright.passes.manager.contract import Bounded, Exact, Lossy, Pass
from graphwright.passes.manager.pipeline import Pipeline


def test_families_list_each_pass_once_in_order():
    listed = [name for names in registry.FAMILIES.values() for name in names]
    assert sorted(listed) == registry.names()
    assert all(list(names) == sorted(names) for names in registry.FAMILIES.values())


@pytest.mark.parametrize("name", registry.names())
def test_row(name):
    pass_type = registry.resolve(name)
    assert issubclass(pass_type, Pass)
    assert pass_type.name == name
    assert is_dataclass(pass_type)
    assert pass_type.__dataclass_params__.frozen
    assert isinstance(pass_type.effect, Exact | Bounded | Lossy)
    assert pass_type.source in ("fx", "onnx", None)
    assert pass_type.target in ("fx", "onnx", None)
    summary = registry.summary(pass_type)
    assert summary.endswith(".")
    assert len(summary) < 120
    _, before, after, *_ = (line.strip() for line in pass_type.__doc__.splitlines() if line.strip())
    assert before
    assert after.startswith("->  ")


@pytest.mark.parametrize("name", registry.names())
def test_default_options_round_trip(name):
    pass_type = registry.resolve(name)
    assert str(Pipeline.parse(name)) == name
    assert Pipeline.parse(name).passes == (pass_type(),)


def test_listing_imports_no_torch():
    code = (
        "import sys\n"
        "from graphwright.passes.manager.registry import names, resolve, summary\n"
        "print([summary(resolve(name)) for name in names()])\n"
        "heavy = {'torch', 'transformers', 'tvm', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(registry.PASSES, "exotic", "no_such_package.passes:Exotic")
    with pytest.raises(PipelineError, match="'exotic' needs the package 'no_such_package'"):
        registry.resolve("exotic")
