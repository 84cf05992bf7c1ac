"""How many CPUs' worth of time a container's control group grants. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def quota(root: str | Path = "/") -> float | None:
    """CPUs that the control groups of this process may use at once, the tightest of them and their parents.

    A group that may run for 150 ms in every 100 ms has 1.5. What is started beyond that is not faster: the
    kernel stops all of the group's threads until the next period.

    Args:
        root: where /proc and /sys stand; for tests.

    Returns:
        None where nothing limits it, or nothing says so (no Linux, no control groups).

    Reference: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (v1).
    """
    base = Path(root)
    found = [share for folder in _groups(base) for share in (_unified(folder), _legacy(folder)) if share]
    return min(found, default=None)


def _groups(base: Path) -> Iterator[Path]:
    """The directories of this process' groups that may limit its CPUs, each followed by its parents."""
    for line in _read(base / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        names = ("",) if number == "0" else (controllers, "cpu", "cpu,cpuacct", "cpuacct,cpu")
        for name in dict.fromkeys(names):
            top = base / "sys/fs/cgroup" / name
            # In a container without a namespace of its own the path is the host's, and the mount's top is
            # the group: what isn't there is passed over, and the top is always asked.
            inside = PurePosixPath(path.lstrip("/"))
            if ".." in inside.parts:
                inside = PurePosixPath()
            yield from (top / each for each in (inside, *inside.parents))


def _unified(folder: Path) -> float | None:
    limit, _, period = _read(folder / "cpu.max").partition(" ")
    return _share(limit, period)


def _legacy(folder: Path) -> float | None:
    return _share(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _share(limit: str, period: str) -> float | None:
    """CPUs; None for "max", for -1, and for what is no number."""
    if not (limit.strip().isdigit() and period.strip().isdigit()) or not int(period):
        return None
    return int(limit) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
