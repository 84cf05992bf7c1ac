"""What each preset runs: a pipeline as text. A goal that one misses falls back to a safer one."""

from __future__ import annotations

from ..ir.program import Program
from ..passes.manager import Pipeline

_CANONICAL = (
    "fold-constants",
    "eliminate-identities",
    "eliminate-common-subexpressions",
    "eliminate-dead-code",
)
_FUSIONS = ("fuse-qkv", "fuse-attention", "fuse-embedding-norm", "fuse-skip-layer-norm", "fuse-bias-gelu")
_EXACT = ("to-onnx", *_CANONICAL, *_FUSIONS, "remove-padding")

TEXTS: dict[str, str] = {
    "exact": ",".join(_EXACT),
    "balanced": ",".join((*_EXACT, "quantize-dynamic")),
    "fast": ",".join((*_EXACT, "quantize-dynamic")),
    "small": ",".join((*_EXACT, "quantize-dynamic")),
}
SAFER: dict[str, tuple[str, ...]] = {
    "exact": (),
    "balanced": ("exact",),
    "fast": ("balanced", "exact"),
    "small": ("balanced", "exact"),
}


def pipeline(name: str, program: Program) -> Pipeline:
    """The preset's pipeline for a program; lowering is left out where it has entered as ONNX."""
    whole = Pipeline.parse(TEXTS[name])
    if program.dialect == "onnx":
        return Pipeline([pass_ for pass_ in whole.passes if pass_.target != "onnx" or pass_.source == "onnx"])
    return whole
