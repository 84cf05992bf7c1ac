"""What every test runs under: no network, no oversubscribed cores."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, so each gets one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")
