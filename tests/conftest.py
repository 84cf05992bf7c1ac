"""What every test runs under: no network, no oversubscribed cores; and which worker runs it."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, so each gets one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def as_written(monkeypatch):
    """Modules are traced in the precision that they have: in float64 a wrong digit shows."""
    monkeypatch.setattr("graphwright.ir.sources.module.own_precision", lambda graph: None)


@pytest.hookimpl(tryfirst=True)  # before xdist writes the groups into the tests' names
def pytest_collection_modifyitems(items):
    """For `--dist loadgroup`: an architecture of the zoo is captured by one worker, whichever files ask for
    it; other tests stay with their file. What is slow goes first, lest one worker is alone with it at last.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    import zoo

    groups = {}
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        names = [one for one in parameters if isinstance(one, str) and one in zoo.ARCHITECTURES]
        group = f"zoo of {names[0]}" if names else item.location[0]
        item.add_marker(pytest.mark.xdist_group(group))
        groups.setdefault(group, []).append(item)
    slow = {group: any(map(_is_slow, tests)) for group, tests in groups.items()}
    items[:] = [item for group in sorted(groups, key=slow.get, reverse=True) for item in groups[group]]


def _is_slow(item):
    return item.get_closest_marker("slow") is not None
