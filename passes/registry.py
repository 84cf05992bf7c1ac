"""Every pass by name. Nothing is imported until a name is resolved."""

from __future__ import annotations

from importlib import import_module

from ..ir.errors import PipelineError, did_you_mean
from .base import Pass

# name -> "module:Class"; a module with a leading dot is relative to this package. Sorted by name.
PASSES: dict[str, str] = {
    "distill": ".recover.distill:Distill",
    "eliminate-common-subexpressions": ".canonical.common_subexpressions:EliminateCommonSubexpressions",
    "eliminate-dead-code": ".canonical.dead_code:EliminateDeadCode",
    "eliminate-identities": ".canonical.identities:EliminateIdentities",
    "fake-quant": ".quantize.fake_quant:FakeQuant",
    "fold-constants": ".canonical.fold_constants:FoldConstants",
    "fuse-attention": ".fuse.attention:FuseAttention",
    "fuse-bias-gelu": ".fuse.bias_gelu:FuseBiasGelu",
    "fuse-embedding-norm": ".fuse.embedding_norm:FuseEmbeddingNorm",
    "fuse-layer-norm": ".fuse.layer_norm:FuseLayerNorm",
    "fuse-qkv": ".fuse.qkv:FuseQkv",
    "fuse-rotary": ".fuse.rotary:FuseRotary",
    "fuse-skip-layer-norm": ".fuse.skip_layer_norm:FuseSkipLayerNorm",
    "keep-residual-sum": ".fuse.residual_sum:KeepResidualSum",
    "layerdrop": ".recover.layerdrop:LayerDrop",
    "lottery-ticket": ".prune.sparse.lottery:LotteryTicket",
    "prune-ffn": ".prune.ffn:PruneFfn",
    "prune-heads": ".prune.heads:PruneHeads",
    "prune-hidden": ".prune.hidden:PruneHidden",
    "prune-layers": ".prune.layers:PruneLayers",
    "prune-movement": ".prune.sparse.movement:PruneMovement",
    "prune-to-latency": ".prune.to_latency:PruneToLatency",
    "prune-vocabulary": ".prune.vocabulary:PruneVocabulary",
    "prune-weights": ".prune.sparse.weights:PruneWeights",
    "quantize-binary": ".quantize.binary:QuantizeBinary",
    "quantize-dynamic": ".quantize.dynamic:QuantizeDynamic",
    "quantize-gobo": ".quantize.gobo:QuantizeGobo",
    "quantize-mixed": ".quantize.mixed:QuantizeMixed",
    "quantize-product": ".quantize.product:QuantizeProduct",
    "quantize-static": ".quantize.static:QuantizeStatic",
    "quantize-ternary": ".quantize.ternary:QuantizeTernary",
    "quantize-weights": ".quantize.weight_only:QuantizeWeights",
    "remove-padding": ".padding.remove_padding:RemovePadding",
    "set-mode": ".recover.set_mode:SetMode",
    "simplify-mask": ".fuse.simplify_mask:SimplifyMask",
    "smooth-quant": ".quantize.smooth:SmoothQuant",
    "specialise-shapes": ".canonical.specialise_shapes:SpecialiseShapes",
    "store-half": ".quantize.half:StoreHalf",
    "theseus": ".recover.theseus:Theseus",
    "to-onnx": ".lower.to_onnx:ToOnnx",
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
        return getattr(import_module(module, __package__), attribute)
    except ModuleNotFoundError as error:
        raise PipelineError(f"the pass '{name}' needs the package '{error.name}': install it") from error


def summary(pass_type: type[Pass]) -> str:
    """The first line of a pass's docstring."""
    return (pass_type.__doc__ or "").strip().partition("\n")[0]
