"""The pins of the tvm backend agree everywhere, and another TVM is refused in one sentence."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from graphwright.backends.tvm.run import versions
from graphwright.ir.errors import BackendError

ROOT = Path(__file__).parents[4]


def test_the_pins_are_those_of_the_package_and_of_the_constraints():
    pinned = [f"{package}=={pin}" for package, pin in versions.PINS.items()]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["tvm"] == pinned
    assert set(pinned) <= set((ROOT / "constraints.txt").read_text().splitlines())


def test_what_is_installed_here_passes():
    versions.check()


@pytest.mark.parametrize("package", versions.PINS)
def test_another_version_is_one_sentence(monkeypatch, package):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1.15" if name == package else real(name))
    wanted = f"{package}=={versions.PINS[package]} and 0.1.15 is installed.*pip install 'graphwright.tvm.'"
    with pytest.raises(BackendError, match=wanted):
        versions.check()


@pytest.mark.parametrize("package", versions.PINS)
def test_a_missing_package_is_one_sentence(monkeypatch, package):
    real = metadata.version

    def version(name):
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(BackendError, match=f"{package}==.* is not installed: pip install"):
        versions.check()


FIRST = """
import sys
from importlib import metadata
metadata.version = lambda name: "9"
from graphwright.backends.tvm.run import library
try:
    library.compiler()
except Exception as error:
    print(type(error).__name__)
print("tvm" in sys.modules or "tvm_ffi" in sys.modules)
"""
LIGHT = """
import sys
from graphwright.backends.tvm.run import library
assert library.runtime().get_global_func("runtime.config_threadpool")
print(sorted(name for name in ("torch", "tvm", "onnx", "onnxruntime") if name in sys.modules))
library.compiler()
print("torch" in sys.modules)
import tvm, torch
assert tvm.runtime.tensor(torch.ones(2).numpy()).numpy().sum() == 2
"""


def printed(script):
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def test_versions_are_checked_before_anything_of_tvm_is_imported():
    assert printed(FIRST)[:2] == ["BackendError", "False"]


def test_tvm_brings_no_torch_and_does_not_stand_in_its_way():
    assert printed(LIGHT)[:2] == ["[]", "False"]
