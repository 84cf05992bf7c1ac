"""Every pass by name. Nothing is imported until a name is resolved."""

from __future__ import annotations

from importlib import import_module

from ...ir.errors import PipelineError, did_you_mean
from .contract import Pass

# Family -> passes. A pass stands in its family's folder, in a file of its name, as a class of its name.
FAMILIES: dict[str, tuple[str, ...]] = {
    "attend": (
        "block-attention",
        "choose-attention",
        "extend-positions",
        "segment-memory",
        "substitute-attention",
    ),
    "canonical": (
        "eliminate-common-subexpressions",
        "eliminate-dead-code",
        "eliminate-identities",
        "fold-constants",
        "specialise-shapes",
    ),
    "fuse": (
        "fuse-attention",
        "fuse-bias-gelu",
        "fuse-embedding-norm",
        "fuse-layer-norm",
        "fuse-qkv",
        "fuse-rotary",
        "fuse-skip-layer-norm",
        "keep-residual-sum",
        "simplify-mask",
    ),
    "lower": ("to-onnx",),
    "padding": ("remove-padding",),
    "prune": (
        "lottery-ticket",
        "prune-ffn",
        "prune-heads",
        "prune-hidden",
        "prune-layers",
        "prune-movement",
        "prune-structure",
        "prune-to-latency",
        "prune-vocabulary",
        "prune-weights",
        "transfer-vocabulary",
    ),
    "quantize": (
        "compute-bfloat16",
        "fake-quant",
        "quantize-binary",
        "quantize-dynamic",
        "quantize-gobo",
        "quantize-mixed",
        "quantize-product",
        "quantize-static",
        "quantize-ternary",
        "quantize-weights",
        "smooth-quant",
        "store-half",
    ),
    "recover": ("distill", "layerdrop", "set-mode", "theseus"),
    "share": (
        "bottleneck",
        "embedding-convolution",
        "factorise-embedding",
        "factorise-linear",
        "grouped-linear",
        "share-projections",
        "tie-embeddings",
        "tie-layers",
    ),
    "simplify": (
        "fold-affine",
        "fold-batch-norm",
        "fold-scale",
        "mixture-of-experts",
        "nonorm",
        "prune-tokens",
        "replace-activation",
    ),
}
PASSES: dict[str, str] = {  # name -> "module:Class"; a module with a leading dot is relative to `passes`
    name: f".{family}.{name.replace('-', '_')}:{name.title().replace('-', '')}"
    for family, names in FAMILIES.items()
    for name in names
}


def names() -> list[str]:
    """Every registered name, sorted."""
    return sorted(PASSES)


def resolve(name: str) -> type[Pass]:
    """The class registered under `name`, imported now.

    Raises:
        PipelineError: there is no such pass (names the nearest one), or an optional package that its module
            needs is missing.
    """
    if name not in PASSES:
        raise PipelineError(f"there is no pass '{name}'{did_you_mean(name, PASSES)}")
    module, _, attribute = PASSES[name].partition(":")
    try:
        return getattr(import_module(module, __package__.rpartition(".")[0]), attribute)
    except ModuleNotFoundError as error:
        raise PipelineError(f"the pass '{name}' needs the package '{error.name}': install it") from error


def summary(pass_type: type[Pass]) -> str:
    """The first line of a pass's docstring."""
    return (pass_type.__doc__ or "").strip().partition("\n")[0]
