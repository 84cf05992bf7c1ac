"""What the numbers of a search hold for, beside the model: versions and the processor."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ...backends.target import detect

_PACKAGES = ("graphwright", "onnxruntime", "torch", "optuna", "apache-tvm")


def versions() -> str:
    """Of this package and those that make and time candidates."""
    return ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))


def processor() -> str:
    """This machine's, with what its times depend on."""
    here = detect()
    return f"{here.model or here.arch}, {here.cores} cores, {' '.join(sorted(here.isa))}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
