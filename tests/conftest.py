"""What every test runs under: no network, no oversubscribed cores; and which worker runs it."""

import gc
import logging
import os
import re

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, so each gets one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")
gc.set_threshold(50_000, 10, 10)  # as the command does
# torch tells of every symbol and guard, stack included, as soon as somebody listens, as pytest 9.2 would.
logging.getLogger("torch.__trace").addHandler = lambda handler: None
# How long examples take says how busy the machine is.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.fixture
def as_written(monkeypatch):
    """Modules are traced in the precision that they have: in float64 a wrong digit shows."""
    monkeypatch.setattr("graphwright.ir.sources.module.own_precision", lambda graph: None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """An architecture of the zoo is captured by one worker, whichever files ask for it; other tests stay with
    their file. (The groups of `--dist loadgroup` are lost between pytest 9.2 and pytest-xdist 3.8.)"""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByArchitecture(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return _group(nodeid)

    return ByArchitecture(config, log)


def pytest_collection_modifyitems(items):
    """What is slow goes first, with all of its group, lest one worker is alone with it at last."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    groups = {}
    for item in items:
        groups.setdefault(_group(item.nodeid), []).append(item)
    slow = {group: any(map(_is_slow, tests)) for group, tests in groups.items()}
    items[:] = [item for group in sorted(groups, key=slow.get, reverse=True) for item in groups[group]]


def _group(nodeid):
    """The architecture among the parameters that a test's name ends with; else its file."""
    import zoo

    file, _, test = nodeid.partition("::")
    parameters = re.split(r"[\[\]-]", test)[1:]
    return next((f"zoo of {one}" for one in parameters if one in zoo.ARCHITECTURES), file)


def _is_slow(item):
    return item.get_closest_marker("slow") is not None
