"""What every test runs under: no network, no oversubscribed cores."""

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
