"""The TVM that this backend is written for, checked before any of it is imported."""

from __future__ import annotations

from importlib import metadata

from ....ir.errors import BackendError

PINS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}


def check() -> None:
    """Refuse another TVM: its interfaces move between releases, and with apache-tvm-ffi 0.1.15
    Schedule.tensorize and MetaSchedule crash the process instead of raising.

    Raises:
        BackendError: a package is missing, or is not the one that is pinned; the sentence has the mend.
    """
    for package, pin in PINS.items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            raise BackendError(
                f"the tvm backend needs {package}=={pin}, which is not installed: "
                "pip install 'graphwright[tvm]'"
            ) from None
        if found != pin:
            raise BackendError(
                f"the tvm backend needs {package}=={pin} and {found} is installed, with which scheduling may "
                "crash the process: pip install 'graphwright[tvm]'"
            )
