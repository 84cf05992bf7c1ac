"""share-projections: one change of basis for all layers, which alone changes nothing; and what it cuts."""

import copy
import re

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.contract import Context
from graphwright.passes.share.share_projections import ShareProjections
from handmade import golden
from pruning import run
from recovery import feeds_of
from sharing import IDS, Blocks
from torch import nn

HIDDEN = {"llama": 48, "gemma2": 48}
READS = {  # of a Llama's layer: products that read a norm
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.up_proj", "mlp.gate_proj"),
}


def feeds(name, count=6):
    case = (zoo.ARCHITECTURES | zoo.SCORES)[name]
    return [{k: v.numpy() for k, v in case.inputs(4, 9, seed=i).items()} for i in range(count)]


def narrowed(name, options, **context):
    return run(f"share-projections{{{options}}}", zoo.fx_program(name), calibration=feeds(name), **context)


def outputs(program, feed):
    with torch.no_grad():
        return program.graph(*arguments(program, feed))


def away(program, other, feed):
    """Largest |difference| at real positions over the largest number there."""
    found = []
    for a, b in zip(outputs(program, feed), outputs(other, feed), strict=True):
        mask = torch.from_numpy(feed["attention_mask"] != 0) if "attention_mask" in feed else None
        if mask is not None and a.shape[:2] == mask.shape:
            a, b = a[mask], b[mask]
        assert a.shape == b.shape
        found.append(float((a - b).abs().max() / a.abs().max()))
    return max(found)


@pytest.mark.parametrize(
    "name",
    [
        "bert", "roberta", "albert", "mpnet", "mobilebert", "modernbert", "t5", "gpt2", "llama", "vit",
        "whisper", "gemma2",
    ],
)  # fmt: skip
def test_with_all_features_kept_nothing_changes(name):
    program = zoo.fx_program(name)
    done = ShareProjections(width=HIDDEN.get(name, 32)).run(program, Context(calibration=feeds(name, 3)))
    assert away(program, done.program, feeds(name, 7)[6]) < 3e-6
    before, after = (recognise(view(one)).summary() for one in (program, done.program))
    assert after | {"embedding": 0} == before | {"embedding": 0}  # whisper's gelu is before a product now


@pytest.mark.parametrize("name", ["bert", "mobilebert", "gpt2", "vit"])
def test_what_is_cut_by_directions_loses_less_than_what_is_cut_by_features(name):
    program, size = zoo.fx_program(name), HIDDEN.get(name, 32)
    done = narrowed(name, f"width={size - 8}")
    pruned = run(f"prune-hidden{{ratio={8 / size},importance=activation,multiple=1}}", program,
                 calibration=feeds(name))  # fmt: skip
    held = feeds(name, 7)[6]
    lost = [sum(float((a - b).square().sum()) for a, b in zip(outputs(program, held), outputs(one, held),
            strict=True)) for one in (done.program, pruned.program)]  # fmt: skip
    assert lost[0] < lost[1]
    assert done.steps[0].statistics["hidden size"] == str(size - 8)
    assert recognise(view(done.program)).summary() == recognise(view(program)).summary()


def normed(module, given):
    """What each RMSNorm of a module gives before its scale, at real tokens, float64."""
    rows = {}

    def look(part, args, result):
        rows.setdefault(part, []).append((result / part.weight).double()[kept])

    parts = [part for part in module.modules() if type(part).__name__.endswith("RMSNorm")]
    hooks = [part.register_forward_hook(look) for part in parts]
    for feed in given:
        kept = torch.from_numpy(feed["attention_mask"] != 0)
        with torch.no_grad():
            module(**{k: torch.from_numpy(v) for k, v in feed.items()})
    for hook in hooks:
        hook.remove()
    return [torch.cat(found).numpy() for found in rows.values()]


def test_every_weight_is_the_wide_one_through_one_matrix_of_leading_directions():
    """Llama: W gamma U where the stream is read, U^T W where it is written, E U; U by PyTorch's own model."""
    module = zoo.ARCHITECTURES["llama"].build()
    done = narrowed("llama", "width=40")
    gram = sum(x.T @ x / np.square(x).sum() for x in normed(copy.deepcopy(module), feeds("llama")))
    values, vectors = np.linalg.eigh(gram)
    leading = vectors[:, ::-1][:, :40]
    wide = {k: v.detach().double().numpy() for k, v in module.state_dict().items()}
    thin = {k: v.detach().double().numpy() for k, v in done.program.graph.state_dict().items()}
    matrix = np.linalg.lstsq(
        wide["model.embed_tokens.weight"], thin["model.embed_tokens.weight"], rcond=None
    )[0]
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(40), atol=1e-6)
    np.testing.assert_allclose(matrix @ matrix.T, leading @ leading.T, atol=1e-4)
    assert float(done.steps[0].statistics["energy kept"]) == pytest.approx(
        values[-40:].sum() / values.sum(), abs=1e-4
    )
    for layer in ("model.layers.0.", "model.layers.1."):
        for norm, names in READS.items():
            for name in (f"{layer}{each}.weight" for each in names):
                expected = (wide[name] * wide[f"{layer}{norm}.weight"]) @ matrix
                np.testing.assert_allclose(thin[name], expected, atol=2e-7)
        for name in (f"{layer}{each}.weight" for each in ("self_attn.o_proj", "mlp.down_proj")):
            np.testing.assert_allclose(thin[name], matrix.T @ wide[name], atol=2e-7)
    assert (np.abs(matrix) < 0.9).all()  # a basis of its own, not some of the features


def test_a_scale_that_the_stream_goes_through_is_the_nearest_to_the_texts():
    """BERT's first norm, by least squares in float64 on what the narrow and the wide model give there."""
    program, given = zoo.fx_program("bert"), feeds("bert")
    done = narrowed("bert", "width=24")
    module = zoo.ARCHITECTURES["bert"].build()
    wide = {k: v.detach().double().numpy() for k, v in module.state_dict().items()}
    thin = {k: v.detach().double().numpy() for k, v in done.program.graph.state_dict().items()}
    words, types, places = (
        f"embeddings.{name}_embeddings.weight" for name in ("word", "token_type", "position")
    )
    matrix = np.linalg.lstsq(wide[words], thin[words], rcond=None)[0]

    def plain(state, feed):
        length = feed["input_ids"].shape[1]
        x = state[words][feed["input_ids"]] + state[types][feed["token_type_ids"]] + state[places][:length]
        x = x - x.mean(-1, keepdims=True)
        return (x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-12))[feed["attention_mask"] != 0]

    x = np.concatenate([plain(thin, feed) for feed in given])
    target = np.concatenate([plain(wide, feed) for feed in given])
    target = (target * wide["embeddings.LayerNorm.weight"] + wide["embeddings.LayerNorm.bias"]) @ matrix
    for feature in range(24):
        columns = np.stack([x[:, feature], np.ones(len(x))], axis=1)
        expected = np.linalg.lstsq(columns, target[:, feature], rcond=None)[0]
        found = [thin[f"embeddings.LayerNorm.{part}"][feature] for part in ("weight", "bias")]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert "4, fitted to the texts" in done.steps[0].notes[0]
    assert program.graph.state_dict()["embeddings.LayerNorm.weight"].shape == (32,)


def test_padding_says_nothing():
    given = feeds("bert")
    for feed in given:
        feed["input_ids"] = np.where(feed["attention_mask"] != 0, feed["input_ids"], 3)
    one = run("share-projections{width=24}", zoo.fx_program("bert"), calibration=given)
    for feed in given:
        feed["input_ids"] = np.where(feed["attention_mask"] != 0, feed["input_ids"], 77)
    other = run("share-projections{width=24}", zoo.fx_program("bert"), calibration=given)
    for a, b in zip(one.program.graph.parameters(), other.program.graph.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


class Headed(nn.Module):
    """Blocks, and something that is done with what they give."""

    def __init__(self, head):
        super().__init__()
        self.body, self.head = Blocks(48, 48), head
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 36))

    def forward(self, input_ids):
        return self.head(self, self.body(input_ids))


HEADS = {
    "a mean over tokens, of length 1": lambda m, x: nn.functional.normalize(x.mean(1), dim=-1),
    "the first token": lambda m, x: x[:, 0],
    "the largest feature": lambda m, x: x.amax(-1),
    "a scale by feature": lambda m, x: x * m.scale,
    "a number added": lambda m, x: x + 0.5,
    "a gelu": lambda m, x: nn.functional.gelu(x),
    "a sum of features": lambda m, x: x.sum(-1),
    "products of tokens": lambda m, x: x @ x.transpose(1, 2),
    "a mask over features": lambda m, x: (x * (torch.arange(9) < 5)[:, None].expand(9, 36).float()).sum(1),
    "what is hidden": lambda m, x: x.masked_fill((torch.arange(9) > 5)[:, None], 0.0),
    "a number where it is hidden": lambda m, x: x.masked_fill((torch.arange(9) > 5)[:, None], 7.0),
    "a gated sum": lambda m, x: x + torch.sigmoid(x) * x,
}


@pytest.mark.parametrize("head", HEADS)
def test_what_reads_the_stream_gets_its_own_features_where_it_needs_them(head):
    torch.manual_seed(0)
    program = capture(Headed(HEADS[head]).eval(), inputs=IDS)
    given = [{"input_ids": np.random.default_rng(i).integers(0, 83, (3, 9))} for i in range(5)]
    whole, thin = (ShareProjections(width=n).run(program, Context(calibration=given)) for n in (36, 28))
    assert away(program, whole.program, given[0]) < 3e-6
    table = whole.program.graph.state_dict()["body.table.weight"]
    assert not torch.allclose(table, program.graph.state_dict()["body.table.weight"])  # another basis it is
    assert thin.program.graph.state_dict()["body.table.weight"].shape == (83, 28)
    assert away(program, thin.program, given[0]) < 0.5
    extra = [name for name in thin.program.graph.state_dict() if "restore" in name or "narrow" in name]
    assert len(extra) == (0 if head == "products of tokens" else 1)
    assert all(tuple(thin.program.graph.state_dict()[name].shape) == (36, 28) for name in extra)


def test_numbers_for_all_features_stay_what_they_are():
    """Ones go to ones, as many as there are: with all features kept, a number put in would not be seen."""
    torch.manual_seed(0)
    program = capture(Headed(HEADS["a number where it is hidden"]).eval(), inputs=IDS)
    given = [{"input_ids": np.random.default_rng(i).integers(0, 83, (3, 9))} for i in range(5)]
    thin = run("share-projections{width=28}", program, calibration=given).program
    (found,) = outputs(thin, given[0])
    assert torch.equal(found[:, 6:], torch.full((3, 3, 36), 7.0))
    assert not (found[:, :6] == 7).any()


def test_a_stream_whose_features_fall_into_groups_is_named():
    done = narrowed("squeezebert", "width=16")
    assert isinstance(done.steps[0].error, PassError)
    assert "its channels are not of one kind" in str(done.steps[0].error)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("width=40", "width is 40, and a stream has 32 features: give that or less"),
        ("width=24", "the model is quantized already"),
    ],
)
def test_what_cannot_be_is_refused_by_its_reason(options, reason):
    program = zoo.fx_program("bert")
    if "quantized" in reason:
        program = run("fake-quant", program, calibration=feeds("bert")).program
    before = program.fingerprint()
    done = run(f"share-projections{{{options}}}", program, calibration=feeds("bert"))
    assert done.steps[0].status == "refused"
    assert reason in str(done.steps[0].error)
    assert program.fingerprint() == before


def test_a_model_without_layers_has_no_stream():
    program = capture(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), inputs=(torch.randn(3, 8),))
    with pytest.raises(PassError, match="no residual stream to narrow: no layers were found"):
        ShareProjections().run(program, Context(calibration=[{program.inputs[0].name: np.ones((3, 8), "f")}]))


def test_options_that_say_nothing_are_refused():
    for options in ("width=1", "tokens=0"):
        with pytest.raises(PipelineError, match=options.split("=")[0]):
            run(f"share-projections{{{options}}}", None)


def test_three_quarters_are_kept_unless_told():
    done = run("share-projections", zoo.fx_program("llama"), calibration=feeds("llama"))
    assert done.steps[0].statistics["hidden size"] == "32"


def test_other_passes_and_the_runtime_go_on_from_it():
    program = zoo.fx_program("bert")
    ran = run(
        "share-projections{width=24},prune-ffn{ratio=0.25,importance=magnitude},"
        "distill{steps=12,batch=4,rate=1e-3,projections=shared}",
        program, calibration=feeds_of(program), original=program, gates=False,
    )  # fmt: skip
    assert ran.ok, [step.error for step in ran.steps]
    lowered = run("to-onnx,quantize-dynamic", ran.program, calibration=feeds_of(program), gates=False)
    assert lowered.ok, [step.error for step in lowered.steps]
    session = onnxruntime.InferenceSession(
        onnx_ir.to_proto(lowered.program.graph).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    one = feeds_of(program, 1)[0]
    real = one["attention_mask"] != 0
    expected, got = outputs(ran.program, one)[0].numpy()[real], session.run(None, one)[0][real]
    assert np.square(got - expected).sum() < 0.01 * np.square(expected).sum()


def test_golden():
    program = capture(Blocks(48).eval(), inputs=IDS)
    given = [{"input_ids": np.arange(27).reshape(3, 9)}]
    done = run("share-projections{width=28}", program, calibration=given)
    shown = [re.sub(r" #[0-9a-f]+", "", text(one)) for one in (program, done.program)]
    golden("share/share-projections", "# before\n{}\n# after\n{}\n".format(*shown))
