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
_EXACT = (
    "to-onnx",
    *_CANONICAL,
    "simplify-mask",
    "fuse-layer-norm",
    "fuse-bias-gelu",
    "fuse-rotary",
    "fuse-qkv",
    "fuse-attention",
    "keep-residual-sum",
    "fuse-skip-layer-norm",  # RMSNorm, and what the one before leaves
    "fuse-embedding-norm",
    "remove-padding",
)
# Int8 products of one activation share its quantization already, and take biases themselves.
_BEFORE_INT8 = tuple(name for name in _EXACT if name not in ("fuse-qkv", "fuse-bias-gelu"))

TEXTS: dict[str, str] = {
    "exact": ",".join(_EXACT),
    "balanced": ",".join((*_BEFORE_INT8, "quantize-dynamic")),
    "fast": ",".join((*_BEFORE_INT8, "quantize-dynamic{min_cosine=0.0}")),
    "small": ",".join((*_BEFORE_INT8, "quantize-weights{method=gptq}")),  # 4 bits, embedding tables too
}
EIGHT_BITS = ",".join((*_BEFORE_INT8, "quantize-weights{bits=8,group=128}"))
CAUTIOUS = ",".join((*_BEFORE_INT8, "quantize-dynamic{min_cosine=0.999}"))
SAFER: dict[str, tuple[str, ...]] = {
    "exact": (),
    "balanced": (CAUTIOUS, TEXTS["exact"]),
    "fast": (TEXTS["balanced"], CAUTIOUS, TEXTS["exact"]),
    "small": (EIGHT_BITS, ",".join((*_BEFORE_INT8, "store-half")), TEXTS["exact"]),
}


def chain(name: str, program: Program) -> list[Pipeline]:
    """The preset's pipeline for a program, then safer ones; a model that is ONNX already is not lowered."""
    whole = [Pipeline.parse(text) for text in (TEXTS[name], *SAFER[name])]
    if program.dialect == "fx":
        return whole
    return [Pipeline(pass_ for pass_ in each.passes if pass_.source != "fx") for each in whole]
