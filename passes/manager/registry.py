"""Every pass by name. Nothing is imported until a name is resolved."""

from __future__ import annotations

from importlib import import_module

from ...ir.errors import PipelineError, did_you_mean
from .contract import Pass

# name -> "module:Class"; a module with a leading dot is relative to this package. Sorted by name.
PASSES: dict[str, str] = {
    "distill": "..recover.distill:Distill",
    "eliminate-common-subexpressions": "..canonical.eliminate_common_subexpressions:EliminateCommonSubexpressions",
    "eliminate-dead-code": "..canonical.eliminate_dead_code:EliminateDeadCode",
    "eliminate-identities": "..canonical.eliminate_identities:EliminateIdentities",
    "fake-quant": "..quantize.fake_quant:FakeQuant",
    "fold-constants": "..canonical.fold_constants:FoldConstants",
    "fuse-attention": "..fuse.fuse_attention:FuseAttention",
    "fuse-bias-gelu": "..fuse.fuse_bias_gelu:FuseBiasGelu",
    "fuse-embedding-norm": "..fuse.fuse_embedding_norm:FuseEmbeddingNorm",
    "fuse-layer-norm": "..fuse.fuse_layer_norm:FuseLayerNorm",
    "fuse-qkv": "..fuse.fuse_qkv:FuseQkv",
    "fuse-rotary": "..fuse.fuse_rotary:FuseRotary",
    "fuse-skip-layer-norm": "..fuse.fuse_skip_layer_norm:FuseSkipLayerNorm",
    "keep-residual-sum": "..fuse.keep_residual_sum:KeepResidualSum",
    "layerdrop": "..recover.layerdrop:LayerDrop",
    "lottery-ticket": "..prune.lottery_ticket:LotteryTicket",
    "prune-ffn": "..prune.prune_ffn:PruneFfn",
    "prune-heads": "..prune.prune_heads:PruneHeads",
    "prune-hidden": "..prune.prune_hidden:PruneHidden",
    "prune-layers": "..prune.prune_layers:PruneLayers",
    "prune-movement": "..prune.prune_movement:PruneMovement",
    "prune-to-latency": "..prune.prune_to_latency:PruneToLatency",
    "prune-vocabulary": "..prune.prune_vocabulary:PruneVocabulary",
    "prune-weights": "..prune.prune_weights:PruneWeights",
    "quantize-binary": "..quantize.quantize_binary:QuantizeBinary",
    "quantize-dynamic": "..quantize.quantize_dynamic:QuantizeDynamic",
    "quantize-gobo": "..quantize.quantize_gobo:QuantizeGobo",
    "quantize-mixed": "..quantize.quantize_mixed:QuantizeMixed",
    "quantize-product": "..quantize.quantize_product:QuantizeProduct",
    "quantize-static": "..quantize.quantize_static:QuantizeStatic",
    "quantize-ternary": "..quantize.quantize_ternary:QuantizeTernary",
    "quantize-weights": "..quantize.quantize_weights:QuantizeWeights",
    "remove-padding": "..padding.remove_padding:RemovePadding",
    "set-mode": "..recover.set_mode:SetMode",
    "simplify-mask": "..fuse.simplify_mask:SimplifyMask",
    "smooth-quant": "..quantize.smooth_quant:SmoothQuant",
    "specialise-shapes": "..canonical.specialise_shapes:SpecialiseShapes",
    "store-half": "..quantize.store_half:StoreHalf",
    "theseus": "..recover.theseus:Theseus",
    "to-onnx": "..lower.to_onnx:ToOnnx",
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
