"""Where a pass that a search may try stands in a pipeline: an order that a person wrote, as always.

Of each slot a candidate takes one pass, or none. What its options may be stands beside them (`Pass.varies`).
"""

from __future__ import annotations

from ...backends.base import Engine

NONE = "none"

# Before to-onnx. Structures go first: what is cut is not factorised, and recovery sees all that was done.
FX: dict[str, tuple[str, ...]] = {
    "vocabulary": ("prune-vocabulary",),
    "structure": ("prune-layers", "prune-structure", "prune-to-latency"),
    "attention": ("choose-attention",),
    "embedding": ("factorise-embedding",),
    "rank": ("factorise-linear",),
    "tying": ("tie-layers",),
    "tokens": ("prune-tokens",),
    "recovery": ("distill",),
}
# After the exact passes.
ONNX: dict[str, tuple[str, ...]] = {
    "bits": (
        "quantize-static",
        "quantize-dynamic",
        "quantize-mixed",
        "quantize-weights",
        "store-half",
        "compute-bfloat16",
    ),
}
SLOTS = {**FX, **ONNX}

# What pays on one runtime alone: ONNX Runtime multiplies no bfloat16, and TVM's kernels scale each row.
RUNS_ON: dict[str, tuple[Engine, ...]] = {
    "quantize-static": ("onnxruntime",),
    "quantize-mixed": ("onnxruntime",),
    "compute-bfloat16": ("tvm",),
}
# Options that a runtime's kernels ask for.
WITH: dict[tuple[str, Engine], dict[str, str]] = {("quantize-dynamic", "tvm"): {"scale": "tensor"}}
