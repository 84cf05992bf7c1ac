"""What a search's workers on a cluster pretend: figures that take a while, and a worker that is killed."""

import os
import signal
import time
from pathlib import Path

from graphwright.passes.manager.varying import Between
from pretend_search import Pretend, Space, figures

WIDE = Space(
    {
        "structure": ("none", "prune-layers"),
        "prune-layers.keep": Between(1, 11),
        "recovery": ("none", "distill"),
        "distill.steps": Between(100, 300000, log=True),
        "bits": ("none", "quantize-static", "quantize-weights"),
        "quantize-static.min_cosine": Between(0.0, 0.99),
        "quantize-weights.bits": (2, 4, 8),
        "quantize-weights.group": (16, 32),
        "runtime": ("onnxruntime",),
    },
    "fx",
)
"""Hardly any two of its points are one pipeline."""


class Noted(Pretend):
    """Writes down what it begins and ends, and where. fatal: the trial whose process is killed, once."""

    def __init__(self, folder, seconds=0.2, fatal=None):
        super().__init__(figures, self.note, seconds)
        self.folder, self.fatal = Path(folder), fatal

    def note(self, name):
        with (self.folder / "notes").open("a") as file:
            file.write(f"{name} by {os.getpid()}\n")
        if name == f"evaluate {self.fatal}":
            mark = self.folder / "killed"
            if not mark.exists():
                mark.touch()
                time.sleep(self.seconds / 2)
                os.kill(os.getpid(), signal.SIGKILL)
