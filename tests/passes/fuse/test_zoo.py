"""All fusions over the zoo: how much of each architecture they fuse, read off its model code, and that its
outputs stay. Two layers each; an encoder-decoder has three attentions for every two feed-forwards."""

from dataclasses import dataclass, field

import pytest
from fusing import fused, same
from graphwright.backends.target import named
from graphwright.passes.fuse.fuse_attention import FuseAttention
from graphwright.passes.fuse.fuse_bias_gelu import FuseBiasGelu
from graphwright.passes.fuse.fuse_embedding_norm import FuseEmbeddingNorm
from graphwright.passes.fuse.fuse_layer_norm import FuseLayerNorm
from graphwright.passes.fuse.fuse_qkv import FuseQkv
from graphwright.passes.fuse.fuse_rotary import FuseRotary
from graphwright.passes.fuse.fuse_skip_layer_norm import FuseSkipLayerNorm
from graphwright.passes.fuse.keep_residual_sum import KeepResidualSum
from graphwright.passes.fuse.simplify_mask import SimplifyMask
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.padding.remove_padding import RemovePadding
from graphwright.passes.quantize.quantize_dynamic import QuantizeDynamic
from zoo import ARCHITECTURES, onnx_program

pytestmark = pytest.mark.slow  # most of it the export of the zoo

TOLERANCE = 2e-5  # float32 rounding through two layers; nanogpt's logits are near 20


@dataclass(frozen=True)
class Expected:
    """(done, found) of each fusion.

    attention: fuse-attention. qkv, gates: projections, without and with a gated feed-forward's. gelu:
    all, and how many of them with a bias. rotary: queries and keys. spelled: norms not yet one operator.
    skip: norms after a residual sum. total: likewise, LayerNorms only. embedding: with its norm.
    mask: GatherNDs undone.
    """

    attention: tuple[int, int] = (2, 2)
    qkv: tuple[int, int] = (6, 6)
    gates: tuple[int, int] | None = None
    gelu: tuple[int, int, int] = (0, 0, 0)
    rotary: tuple[int, int] = (0, 0)
    spelled: tuple[int, int] = (0, 0)
    skip: tuple[int, int] = (4, 5)
    total: tuple[int, int] = (4, 5)
    embedding: tuple[int, int] = (0, 1)
    mask: int = 1
    notes: dict[str, str] = field(default_factory=dict)


_ONE = "its q and k and v are one product already"
_BERT = {"gelu": (2, 2, 2), "embedding": (1, 1)}
_NO_SUM = "it normalises no sum of two computed values"
_DECODER = {"gates": (10, 10), "rotary": (4, 4), "spelled": (5, 5), "total": (0, 0)}

EXPECTED = {
    # The embedding's norm reads a sum with positions that are the same in every row: (1, length, width).
    "bert": Expected(**_BERT),
    "distilbert": Expected(**_BERT),
    "electra": Expected(**_BERT),
    "albert": Expected(**_BERT),
    # Positions counted from the mask vary by row, so that the embedding's sum is one of equal sides.
    "roberta": Expected(**_BERT, skip=(5, 5), total=(5, 5)),
    "mpnet": Expected(**_BERT, skip=(5, 5), total=(5, 5)),
    # Values read the layer's input, queries and keys the shared bottleneck; NoNorm; ReLU.
    "mobilebert": Expected(
        qkv=(4, 6), skip=(0, 13), total=(0, 0), notes={"qkv": "its v reads a value that no other reads"}
    ),
    # Convolutions: features are on axis 1, norms are between transposes, biases inside the convolution.
    "squeezebert": Expected(
        qkv=(0, 6), gelu=(0, 2, 0), skip=(1, 5), total=(1, 5), embedding=(1, 1),
        notes={"qkv": "it is a convolution", "gelu": "no bias is added right before it", "skip": _NO_SUM},
    ),
    # One projection for q, k and v, one for gate and up, no biases; the first norm reads the embedding.
    "modernbert": Expected(
        qkv=(0, 2), gates=(0, 4), gelu=(0, 2, 0), rotary=(4, 4), notes={"qkv": _ONE, "skip": _NO_SUM}
    ),
    # The tanh GELU is spelled out; the bias before it is inside the flattened product.
    "gpt2": Expected(qkv=(0, 2), gelu=(2, 2, 0), notes={"qkv": _ONE}),
    # Rows are flattened around the feed-forward: a reshape stands between sum and norm.
    "opt": Expected(skip=(1, 5), total=(1, 5), notes={"skip": _NO_SUM}),
    "llama": Expected(**_DECODER),
    "qwen2": Expected(**_DECODER),
    # Two norms more in each layer, of queries and of keys, which follow no sum.
    "qwen3": Expected(**{**_DECODER, "spelled": (9, 9)}, skip=(4, 9), notes={"skip": _NO_SUM}),
    # Cross-attention's queries read another stream than its keys and values. The stacks' first norms read
    # the embedding.
    "t5": Expected(
        attention=(6, 6), qkv=(16, 18), spelled=(12, 12), skip=(10, 12), total=(0, 0), embedding=(0, 2),
        notes={"qkv": "its q reads a value that no other reads", "skip": _NO_SUM},
    ),
    # The decoder's learned positions are the same in every row.
    "bart": Expected(
        attention=(6, 6), qkv=(16, 18), gelu=(4, 4, 4), skip=(11, 12), total=(11, 12), embedding=(2, 2)
    ),
    # Two more GELUs after the convolutions, which have their biases inside.
    "whisper": Expected(gelu=(2, 4, 2), mask=0),
    # Positions go into the patches, and the first norm reads the class token put before them.
    "vit": Expected(gelu=(2, 2, 2), mask=0, notes={"skip": _NO_SUM}),
    "clip_text": Expected(),
    "clip_vision": Expected(skip=(3, 6), total=(3, 6), mask=0, notes={"skip": _NO_SUM}),
    "deberta_v2": Expected(
        attention=(0, 2), qkv=(0, 6), gelu=(2, 2, 2), skip=(4, 6), total=(4, 6), mask=0,
        notes={"attention": "has batch and heads on one axis", "qkv": "is used by"},
    ),
    "torch_encoder": Expected(qkv=(0, 2), gelu=(2, 2, 2), mask=0, notes={"qkv": _ONE}),
    "nanogpt": Expected(qkv=(0, 2), gelu=(2, 2, 2), mask=0, notes={"qkv": _ONE}),
    "einsum": Expected(skip=(4, 4), total=(4, 4), mask=0, notes={"embedding": "no norm follows the sum"}),
}  # fmt: skip


def of(counts):
    return f"{counts[0]} of {counts[1]}"


def test_every_architecture_is_expected():
    assert list(EXPECTED) == [name for name in EXPECTED if name in ARCHITECTURES]
    assert set(EXPECTED) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_counts_and_outputs(name):
    program, expected = onnx_program(name), EXPECTED[name]
    gates = expected.gates or expected.qkv
    found = {
        "attention": (FuseAttention(), {"attentions fused": of(expected.attention)}),
        "qkv": (FuseQkv(), {"projections merged": of(expected.qkv)}),
        "gates": (FuseQkv(gates=True), {"projections merged": of(gates)}),
        "gelu": (FuseBiasGelu(), {"GELUs fused": of(expected.gelu), "with a bias": expected.gelu[2]}),
        "rotary": (FuseRotary(), {"rotations fused": of(expected.rotary)}),
        "spelled": (FuseLayerNorm(), {"norms fused": of(expected.spelled)}),
        "skip": (FuseSkipLayerNorm(), {"norms fused": of(expected.skip)}),
        "total": (KeepResidualSum(), {"residual sums kept": f"{of(expected.total)} norms"}),
        "embedding": (FuseEmbeddingNorm(), {"embeddings fused": of(expected.embedding)}),
        "mask": (SimplifyMask(), {"gathers undone": expected.mask}),
    }
    wrong = {}
    for what, (pass_, counts) in found.items():
        result = fused(pass_, program, TOLERANCE, thorough=False)
        if {key: result.statistics[key] for key in counts} != counts:
            wrong[what] = (dict(result.statistics), result.notes)
        done, total = _parts(next(iter(counts.values())))
        if done < total:
            assert result.notes, f"{what} leaves {total - done} and gives no reason"
        reason = expected.notes.get(what)
        assert reason is None or reason in " ".join(result.notes), (what, result.notes)
    assert not wrong


def _parts(count):
    if isinstance(count, int):
        return count, count
    done, _, total = count.removesuffix(" norms").partition(" of ")
    return int(done), int(total)


@pytest.mark.parametrize("name", ["bert", "modernbert", "gpt2", "llama", "t5"])
def test_attention_in_eager_spelling(name):
    result = fused(FuseAttention(), onnx_program(name, "eager"), TOLERANCE, thorough=False)
    assert result.statistics["attentions fused"] == of(EXPECTED[name].attention), result.notes


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "deberta_v2"])
def test_multi_head_kernel(name):
    """The kernel of models from before opset 23 takes every attention that needs no zeros for rows without
    keys."""
    result = fused(FuseAttention(kernel="multi-head"), onnx_program(name), TOLERANCE, thorough=False)
    done, total = _parts(result.statistics["attentions fused"])
    left = [note for note in result.notes if "a row without keys gives zero in it" in note]
    assert done + len(left) == total == EXPECTED[name].attention[1], result.notes


CHAIN = (
    "simplify-mask,fuse-layer-norm,fuse-rotary,fuse-qkv,fuse-attention,fuse-embedding-norm,fuse-bias-gelu,"
    "fuse-skip-layer-norm"
)


@pytest.mark.parametrize("name", ["bert", "modernbert", "llama", "t5", "bart", "gpt2"])
def test_all_fusions_one_after_another(name):
    program = onnx_program(name)
    run = Pipeline.parse(CHAIN).run(program.clone())
    assert run.ok, [step.error for step in run.steps]
    same(program, run.program, TOLERANCE)
    again = Pipeline.parse(CHAIN).run(run.program)
    assert {step.status for step in again.steps} == {"no change"}, [
        (step.text, step.status, step.statistics) for step in again.steps
    ]


@pytest.mark.parametrize("first", [True, False])
def test_merged_projections_before_and_after_fused_attention(first):
    program = onnx_program("bart")
    passes = [FuseQkv(), FuseAttention()]
    for pass_ in passes if first else passes[::-1]:
        program = pass_.run(program.clone(), Context()).program
    kernels = [node.op_type for node in program.graph.graph]
    assert kernels.count("Attention") == 6
    assert kernels.count("Split") == 6
    same(onnx_program("bart"), program, TOLERANCE)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_padding_is_removed_from_merged_projections(name):
    """Three projections a layer are one, and nothing else of what remove-padding packs gets lost."""
    program = onnx_program(name)
    apart = RemovePadding().run(program.clone(), Context())
    merged = RemovePadding().run(FuseQkv().run(program.clone(), Context()).program, Context())
    key = "projections on real tokens"
    assert apart.statistics[key] - merged.statistics[key] == 4, merged.notes


def test_merged_projections_in_int8():
    program, context = onnx_program("bert"), Context(target=named("x86-64-vnni"))
    merged = FuseQkv().run(program.clone(), Context()).program
    apart, together = (QuantizeDynamic(min_cosine=0.0).run(p.clone(), context) for p in (program, merged))
    assert apart.statistics["products in int8"] - together.statistics["products in int8"] == 4
    same(apart.program, together.program, 1e-4)
