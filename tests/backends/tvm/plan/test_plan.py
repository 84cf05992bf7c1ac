"""Planned functions: which kernels run them, and that every architecture of the zoo computes what it did."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
import transformers
import tvm
import zoo
from graphwright.backends.runtimes.onnxruntime import OnnxRuntime
from graphwright.backends.target import detect
from graphwright.backends.tvm.build.compile import Machine, compile_buckets
from graphwright.backends.tvm.frontend.relax import relax_module
from graphwright.backends.tvm.plan.planner import plan
from graphwright.backends.tvm.run.kept import Kept
from graphwright.ir.capture import capture
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from turned import turned
from tvm import relax
from tvm_run import sizes_of

MACHINE = Machine.of(detect(), 2)


def planned(program, feed):
    imported = relax_module(program, sizes_of(program, feed))
    return plan(imported.module, program.inputs, MACHINE)


def run(program, feed):
    """(outputs, the mask whose padding was left out) of a compiled program."""
    built = compile_buckets(program, detect(), 2, [sizes_of(program, feed)])
    machine, (bucket,) = relax.VirtualMachine(built.executable, tvm.cpu()), built.buckets
    arrays = [feed[spec.name] for spec in program.inputs]
    if bucket.mask:
        (spec,) = (spec for spec in program.inputs if spec.name == bucket.mask)
        arrays += Kept(feed[spec.name].shape).of(spec.kept(feed[spec.name]))
    arrays += [built.weights[name] for name in bucket.weights]
    found = machine[bucket.function](*map(tvm.runtime.tensor, arrays))
    found = [found] if isinstance(found, tvm.runtime.Tensor) else found
    return [tensor.numpy() for tensor in found], bucket.mask


def feed_of(case):
    return {name: tensor.numpy() for name, tensor in case.inputs(3, 11).items()}


# Three sequences with padding between them, and one alone, in the spellings of attention that exporters have.
# Every architecture once; in both dialects what no other is like. T5 from ONNX is in `test_architectures`.
ONNX = ["roberta", "albert", "mobilebert", "gpt2", "qwen3", "bart", "vit", "clip_text", "deberta_v2"]
FX = [
    "distilbert", "electra", "mpnet", "squeezebert", "opt", "qwen2", "t5", "whisper", "clip_vision",
    "torch_encoder", "nanogpt",
]  # fmt: skip
BOTH = ["bert", "modernbert", "llama", "einsum"]


def test_every_architecture_is_there():
    assert sorted([*ONNX, *FX, *BOTH]) == sorted(zoo.ARCHITECTURES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dialect", "shape"),
    [(name, "onnx", (3, 11)) for name in [*ONNX, *BOTH]] + [(name, "fx", (1, 17)) for name in [*FX, *BOTH]],
)
def test_every_architecture_agrees_with_eager(name, dialect, shape):
    case = zoo.ARCHITECTURES[name]
    attn = case.attns[0 if dialect == "onnx" else -1]
    inputs = case.inputs(*shape)
    feed = {key: tensor.numpy() for key, tensor in inputs.items()}
    program = (zoo.onnx_program if dialect == "onnx" else zoo.fx_program)(name, attn)
    outputs, _ = run(program, feed)
    kept = feed.get("attention_mask")  # a padded query that sees no key has no defined context
    with torch.no_grad():
        result = case.build(attn)(**inputs)
    leaves = torch.utils._pytree.tree_leaves(dict(result) if isinstance(result, Mapping) else result)
    for found, wanted in zip(outputs, (leaf.numpy() for leaf in leaves), strict=True):
        assert found.shape == wanted.shape
        error = np.abs(found - wanted) / np.maximum(1, np.abs(wanted))
        if kept is not None and error.shape[:2] == kept.shape:
            error = error[kept != 0]
        assert error.max() < 1e-4


def test_a_mask_that_is_1_for_padding_is_left_out_all_the_same():
    feed = feed_of(zoo.ARCHITECTURES["bert"])
    real = feed["attention_mask"] != 0
    straight, used = run(zoo.onnx_program("bert"), feed)
    around, also = run(
        turned(zoo.onnx_program("bert")), {**feed, "attention_mask": 1 - feed["attention_mask"]}
    )
    assert used == also == "attention_mask"
    for a, b in zip(straight, around, strict=True):
        same = real if a.shape[:2] == real.shape else ...
        np.testing.assert_allclose(b[same], a[same], rtol=0, atol=1e-6)


def test_an_encoder_is_kernels_from_ids_to_its_last_norm():
    feed = feed_of(zoo.ARCHITECTURES["bert"])
    for program in (zoo.onnx_program("bert"), zoo.fx_program("bert")):
        found = planned(program, feed)
        assert found.mask == "attention_mask"
        assert found.kernels == {
            "embedding_32": 1, "dense_f32_32x96": 2, "attention": 2, "dense_f32_32x32": 2,
            "dense_f32_32x72": 2, "dense_f32_72x32": 2, "unpack_32": 1,
        }  # fmt: skip


def test_positions_and_the_one_type_of_all_tokens_are_one_table():
    """Without token types as an input, theirs is a constant beside that of positions."""
    case = zoo.ARCHITECTURES["bert"]
    inputs = {name: x for name, x in case.inputs(3, 11).items() if name != "token_type_ids"}
    module = case.build()
    feed = {name: tensor.numpy() for name, tensor in inputs.items()}
    program = capture(module, inputs=inputs)
    assert planned(program, feed).kernels["embedding_32"] == 1
    (found, *_), mask = run(program, feed)
    with torch.no_grad():
        expected = module(**inputs)[0].numpy()
    real = feed[mask] != 0
    np.testing.assert_allclose(found[real], expected[real], atol=1e-5)


class Pooled(torch.nn.Module):
    """An encoder whose token vectors are added over a mask, or over its opposite."""

    def __init__(self, opposite):
        super().__init__()
        self.encoder, self.opposite = zoo.ARCHITECTURES["bert"].build(), opposite

    def forward(self, input_ids, attention_mask, token_type_ids):
        tokens = self.encoder(input_ids, attention_mask, token_type_ids)[0]
        mask = attention_mask.unsqueeze(-1).expand(tokens.size()).float()
        mask = 1 - mask if self.opposite else mask
        mean = (tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return mean / mean.pow(2).sum(-1, keepdim=True).pow(0.5)


@pytest.mark.parametrize("opposite", [False, True])
def test_tokens_are_pooled_where_they_lie(opposite):
    inputs = zoo.ARCHITECTURES["bert"].inputs(3, 11)
    module = Pooled(opposite).eval()
    program = capture(module, inputs=inputs)
    feed = {name: tensor.numpy() for name, tensor in inputs.items()}
    kernels = planned(program, feed).kernels
    assert (kernels["pool_32"], kernels["unpack_32"]) == ((0, 1) if opposite else (1, 0))
    if not opposite:  # a padded token has no defined vector
        with torch.no_grad():
            expected = module(**inputs).numpy()
        np.testing.assert_allclose(run(program, feed)[0][0], expected, atol=1e-5)


def test_a_decoder_is_kernels_gates_in_one_product_grouped_heads_rotated_where_they_lie():
    for program in (zoo.onnx_program("llama"), zoo.fx_program("llama")):
        found = planned(program, feed_of(zoo.ARCHITECTURES["llama"]))
        assert found.mask == "attention_mask"
        assert found.kernels == {
            "embedding_48": 1, "norm_48": 1, "dense_f32_48x80": 2, "rotate": 2, "attention": 2,
            "dense_f32_48x48": 2, "dense_f32_48x88": 2, "dense_f32_88x48": 2, "dense_f32_48x103": 1,
            "unpack_103": 1,
        }  # fmt: skip


class Flipped(torch.nn.Module):
    """An encoder, and a Linear that reads its features backwards, which no kernel does, beside its stream."""

    def __init__(self):
        super().__init__()
        self.encoder, self.linear = zoo.ARCHITECTURES["bert"].build(), torch.nn.Linear(32, 32)

    def forward(self, input_ids, attention_mask, token_type_ids):
        tokens = self.encoder(input_ids, attention_mask, token_type_ids)[0]
        return tokens + self.linear(tokens.flip(-1))


def test_a_sum_with_kept_tokens_is_of_kept_tokens():
    inputs = zoo.ARCHITECTURES["bert"].inputs(3, 11)
    module = Flipped().eval()
    program = capture(module, inputs=inputs)
    (found, *_), mask = run(program, {name: tensor.numpy() for name, tensor in inputs.items()})
    real = inputs[mask] != 0
    with torch.no_grad():
        np.testing.assert_allclose(found[real], module(**inputs)[real], atol=1e-5)


def test_windows_are_seen_in_the_masks_and_padding_is_left_out_all_the_same():
    """ModernBERT's second layer looks 4 tokens far; in 5 tokens that is all of them. Holes in the mask keep
    places apart that lie together then."""
    case = zoo.ARCHITECTURES["modernbert"]
    program = zoo.onnx_program("modernbert")
    for length in (11, 5):
        inputs = case.inputs(3, length)
        inputs["attention_mask"][0, 2:4] = 0
        feed = {name: tensor.numpy() for name, tensor in inputs.items()}
        outputs, mask = run(program, feed)
        assert mask == "attention_mask"
        with torch.no_grad():
            expected = case.build("eager")(**inputs)[0].numpy()
        real = feed[mask] != 0
        np.testing.assert_allclose(outputs[0][real], expected[real], atol=1e-4)


class Sparse(torch.nn.Module):
    """A BERT layer whose tokens see blocks of others, of a pattern that is a buffer."""

    def __init__(self, itself):
        super().__init__()
        self.encoder = zoo.ARCHITECTURES["bert"].build()
        blocks = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.3
        sees = blocks.repeat_interleave(4, 0).repeat_interleave(4, 1)
        self.register_buffer("sees", sees | (torch.eye(24) > 0) if itself else sees.fill_diagonal_(False))

    def forward(self, input_ids, attention_mask, token_type_ids):
        length = input_ids.shape[1]
        seen = self.sees[None, None, :length, :length] & (attention_mask[:, None, None, :] != 0)
        return self.encoder(input_ids, seen, token_type_ids)[0]


@pytest.mark.parametrize("itself", [True, False])
def test_blocks_of_keys_are_seen_in_the_masks_unless_a_token_may_see_none(itself):
    module = Sparse(itself).eval()
    inputs = zoo.ARCHITECTURES["bert"].inputs(3, 23)
    inputs["attention_mask"][0, 2:4] = 0
    program = capture(module, inputs=inputs)
    feed = {name: tensor.numpy() for name, tensor in inputs.items()}
    kernels = planned(program, feed).kernels
    assert (kernels.get("visible"), kernels.get("sparse_attention")) == ((1, 2) if itself else (None, None))
    (found, *_), mask = run(program, feed)
    assert (mask is None) != itself
    real = inputs["attention_mask"] != 0
    with torch.no_grad():
        np.testing.assert_allclose(found[real], module(**inputs)[real], atol=1e-5)


@pytest.mark.parametrize(("model", "more"), [("Gemma", {"head_dim": 8}), ("Mistral", {"sliding_window": 4})])
def test_decoders_with_a_scaled_embedding_or_a_window_leave_padding_out(model, more):
    torch.manual_seed(0)
    config = getattr(transformers, f"{model}Config")(
        vocab_size=103, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
        intermediate_size=88, max_position_embeddings=64, use_cache=False, **more,
    )  # fmt: skip
    module = getattr(transformers, f"{model}ForCausalLM")(config).eval()
    inputs = zoo.ARCHITECTURES["llama"].inputs(3, 11)
    program = capture(module, inputs=inputs)
    (found, *_), mask = run(program, {name: tensor.numpy() for name, tensor in inputs.items()})
    real = inputs[mask] != 0
    with torch.no_grad():
        np.testing.assert_allclose(found[real], module(**inputs).logits[real], atol=1e-5)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("Falcon", {"num_hidden_layers": 1, "num_attention_heads": 6, "max_position_embeddings": 64}),
        ("Bloom", {"n_layer": 1, "n_head": 6}),
    ],
)
def test_decoders_that_the_generic_operators_run(model, options):
    """Heads picked by indices from the end; a bias of the batch's heads beside a mask of the batch."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{model}Config")(
        vocab_size=103, hidden_size=48, use_cache=False, attn_implementation="eager", **options
    )
    module = getattr(transformers, f"{model}ForCausalLM")(config).eval()
    inputs = zoo.ARCHITECTURES["llama"].inputs(3, 11)
    program = capture(module, inputs=inputs)
    (found, *_), _ = run(program, {name: tensor.numpy() for name, tensor in inputs.items()})
    real = inputs["attention_mask"] != 0
    with torch.no_grad():
        np.testing.assert_allclose(found[real], module(**inputs).logits[real], atol=1e-5)


@pytest.mark.parametrize(
    "pipeline",
    [
        "quantize-dynamic{min_cosine=0.0,scale=tensor}",
        "quantize-dynamic{min_cosine=0.0}",
        "quantize-static{form=qdq,min_cosine=0.0}",
        "quantize-static{min_cosine=0.0}",
        "quantize-dynamic",
    ],
)
def test_quantized_programs_run_on_integers(pipeline):
    """Against ONNX Runtime's build of the same program: each row has a scale of its own here, so that only
    quantization noise may differ."""
    plain, feed = zoo.onnx_program("bert"), feed_of(zoo.ARCHITECTURES["bert"])
    ran = Pipeline.parse(pipeline).run(plain, Context(calibration=[feed], target=detect()))
    assert ran.ok, ran.steps[-1].error
    kernels = planned(ran.program, feed).kernels
    assert not [name for name in kernels if name.startswith("dense_f32")]
    (found, *_), mask = run(ran.program, feed)
    real = feed[mask] != 0
    other, exact = (next(iter(OnnxRuntime().build(p).run(feed).values())) for p in (ran.program, plain))
    norm = np.linalg.norm
    noise = norm((other - exact)[real]) / norm(exact[real])
    assert norm((found - exact)[real]) / norm(exact[real]) < 1.3 * noise + 1e-3
    assert norm((found - other)[real]) / norm(exact[real]) < 2 * noise + 1e-3
