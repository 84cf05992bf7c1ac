"""extend-positions: tables that grow, rotations that slow down, and short texts that stay as they were."""

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.errors import PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.fx.graph import attribute
from graphwright.ir.text import text
from graphwright.passes.attend.positions.frequencies import scaled
from graphwright.passes.attend.positions.longer import banded, longer
from graphwright.passes.attend.positions.waves import frequencies_of, halved, waves
from graphwright.passes.manager.pipeline import Pipeline
from handmade import golden
from pruning import run
from torch import nn

LONG = 256  # 4 times the zoo's 64 places


def extended(program, options="", length=LONG):
    done = run(f"extend-positions{{length={length}{options and ',' + options}}}", program)
    assert done.steps[0].status == "applied", done.steps[0].error
    return done.program


def lowered(program):
    done = run("to-onnx", program)
    assert done.ok, done.steps[0].error
    return done.program


def inputs(name, length, batch=2):
    return {k: v.numpy() for k, v in zoo.ARCHITECTURES[name].inputs(batch, length).items()}


def outputs(program, feed):
    return execute(program, [feed])[0]


def longer_module(name, **settings):
    """transformers' own model of more places, with the old one's weights and its table repeated."""
    old = zoo.ARCHITECTURES[name].build()
    config = type(old.config)(**{**old.config.to_dict(), **settings})
    config._attn_implementation = "sdpa"
    new = type(old)(config, **({} if name == "gpt2" else {"add_pooling_layer": False})).eval()
    state = {k: v for k, v in old.state_dict().items() if "position_ids" not in k}
    for key, table in state.items():
        if "position_embeddings" in key or "wpe" in key:
            ahead = 2 if name == "roberta" else 0
            places = table[ahead:]
            state[key] = torch.cat([table[:ahead], *[places] * (LONG // len(places))])
    new.load_state_dict(state, strict=False)
    return new


SETTINGS = {
    "bert": {"max_position_embeddings": LONG},
    "roberta": {"max_position_embeddings": LONG + 2},
    "gpt2": {"n_positions": LONG},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_the_model_of_more_places_with_the_table_repeated(name):
    program = zoo.fx_program(name)
    after = extended(program)
    assert after.symbols["length"] == (1, LONG)
    assert program.symbols["length"] == (1, 64)
    module = longer_module(name, **SETTINGS[name])
    programs = (after, *([lowered(after)] if name == "gpt2" else []))
    for length in (1, 64, 65, LONG):
        feed = inputs(name, length)
        with torch.no_grad():
            wanted = module(**{k: torch.from_numpy(v) for k, v in feed.items()})[0].numpy()
        for made in programs:
            got = outputs(made, feed)[after.outputs[0]]
            np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5)
    feed = inputs(name, 40)
    for key, value in outputs(program, feed).items():
        np.testing.assert_allclose(outputs(after, feed)[key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["linear", "ntk"])
def test_rotations_are_transformers_own_scaled_ones(how):
    case = zoo.ARCHITECTURES["llama"]
    after = extended(zoo.fx_program("llama"), f"rotary={how},pretrained=64")
    module = case.build()
    dim, base = 8, 10000.0
    steps = torch.arange(0, dim, 2, dtype=torch.float64) / dim
    slower = base**-steps / 4 if how == "linear" else (base * 4 ** (dim / (dim - 2))) ** -steps
    module.model.rotary_emb.inv_freq.copy_(slower.float())
    feed = inputs("llama", LONG)
    with torch.no_grad():
        wanted = module(**{k: torch.from_numpy(v) for k, v in feed.items()})[0].numpy()
    for made in (after, *([lowered(after)] if how == "ntk" else [])):
        np.testing.assert_allclose(outputs(made, feed)[after.outputs[0]], wanted, rtol=0, atol=1e-5)


def test_modernberts_two_rotations_are_slowed_and_a_known_length_needs_no_more():
    done = run(f"extend-positions{{length={LONG},pretrained=64}}", zoo.fx_program("modernbert"))
    assert done.steps[0].statistics["rotations"] == 2
    done = run(f"extend-positions{{length={LONG}}}", zoo.fx_program("modernbert"))
    assert "nothing says how long texts were when rotations were learned: give it" in str(done.steps[0].error)
    done = run("extend-positions{length=64,pretrained=64}", zoo.fx_program("modernbert"))
    assert done.steps[0].status == "no change"
    assert "texts of 64 tokens are taken already" in done.steps[0].notes


@pytest.mark.parametrize("name", ["mpnet", "mobilebert", "bart", "clip_text", "einsum", "nanogpt"])
def test_other_spellings_of_places_take_four_times_the_length(name):
    program = zoo.fx_program(name)
    old = program.symbols["length"][1]
    after = extended(program, length=4 * old)
    feed = inputs(name, 4 * old)
    assert all(np.isfinite(value).all() for value in outputs(after, feed).values())
    feed = inputs(name, min(old, 20))
    for key, value in outputs(program, feed).items():
        np.testing.assert_allclose(outputs(after, feed)[key], value, rtol=0, atol=1e-6)


def test_buckets_of_relative_positions_take_any_length_already():
    done = run(f"extend-positions{{length={LONG}}}", zoo.fx_program("t5"))
    assert done.steps[0].status == "no change"
    assert f"texts of {LONG} tokens are taken already" in done.steps[0].notes


@pytest.mark.parametrize("name", ["vit", "whisper"])
def test_a_fixed_grid_is_refused_in_words(name):
    done = run("extend-positions", zoo.fx_program(name))
    assert "no input has an axis of tokens that may be longer" in str(done.steps[0].error)
    assert done.program.fingerprint() == zoo.fx_program(name).fingerprint()


class Old(nn.Module):
    """As older code has it: places are given, later keys are hidden by a buffer, sines are a table."""

    def __init__(self, table):
        super().__init__()
        self.words, self.table = nn.Embedding(50, 8), nn.Parameter(table)
        self.register_buffer("bias", torch.tril(torch.ones(16, 16)).view(1, 16, 16).bool())

    def forward(self, input_ids, position_ids):
        x = self.words(input_ids) + nn.functional.embedding(position_ids, self.table)
        n = x.shape[1]
        scores = (x @ x.transpose(1, 2)).masked_fill(~self.bias[:, :n, :n], -1e9)
        return scores.softmax(-1) @ x


def old(table):
    torch.manual_seed(0)
    module = Old(table).eval()
    ids = torch.randint(0, 50, (2, 7))
    places = torch.arange(7)[None].expand(2, 7).contiguous()
    return module, capture(module, inputs={"input_ids": ids, "position_ids": places})


def sinusoids(places, features=8):
    angles = np.arange(places)[:, None] * 100.0 ** (-np.arange(features // 2) / 4)
    return torch.tensor(np.concatenate([np.sin(angles), np.cos(angles)], 1)).float()


def test_places_that_are_given_sines_and_masks_of_later_keys_go_on():
    module, program = old(sinusoids(16))
    after = extended(program, length=50)
    assert next(spec.high for spec in after.inputs if spec.role == "position_ids") == 50
    ids = np.random.default_rng(0).integers(0, 50, (2, 50))
    feed = {"input_ids": ids, "position_ids": np.arange(50)[None].repeat(2, 0)}
    golden("attend/extend-positions", f"# before\n{text(program)}\n# after\n{text(after)}\n")
    module.table = nn.Parameter(sinusoids(50))
    module.bias = torch.tril(torch.ones(1, 50, 50)).bool()
    wanted = module(*map(torch.from_numpy, feed.values())).detach().numpy()
    np.testing.assert_allclose(outputs(after, feed)[after.outputs[0]], wanted, rtol=0, atol=1e-5)


class Read(Old):
    """A near miss: the table is read whole as well."""

    def forward(self, input_ids, position_ids):
        return super().forward(input_ids, position_ids) + self.table.mean()


class Odd(Old):
    """A near miss: which of three kinds a place is of."""

    def __init__(self, table):
        super().__init__(table)
        self.register_buffer("kinds", torch.arange(16)[None] % 3)

    def forward(self, input_ids, position_ids):
        kinds = self.kinds[:, : input_ids.shape[1]]
        return super().forward(input_ids, position_ids) + kinds[..., None]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Read, "table is taken by place, and mean"), (Odd, "kinds is taken by place, and what it holds")],
)
def test_a_table_of_which_more_is_made_is_refused(kind, reason):
    module = kind(torch.randn(16, 8)).eval()
    ids, places = torch.randint(0, 50, (2, 7)), torch.arange(7)[None].repeat(2, 1)
    program = capture(module, inputs={"input_ids": ids, "position_ids": places})
    done = run("extend-positions{length=50}", program)
    assert reason in str(done.steps[0].error)
    assert done.program.fingerprint() == program.fingerprint()


def test_interpolated_places_lie_between_those_that_there_were():
    after = extended(zoo.fx_program("roberta"), "how=interpolate")
    table = attribute(after.graph, "embeddings.position_embeddings.weight").detach().double().numpy()
    old = zoo.ARCHITECTURES["roberta"].build().embeddings.position_embeddings.weight.detach().double().numpy()
    np.testing.assert_array_equal(table[:2], old[:2])
    at = np.linspace(0, 63, LONG)
    for feature in (0, 7, 31):
        wanted = np.interp(at, np.arange(64), old[2:, feature])
        np.testing.assert_allclose(table[2:, feature], wanted, rtol=0, atol=1e-6)


def test_integers_count_on_or_stay_and_others_are_left():
    ids = torch.arange(5)[None]
    assert longer(ids, 1, 0, 8, "copy").tolist() == [list(range(8))]
    assert longer(torch.zeros(1, 5, dtype=torch.long), 1, 2, 8, "interpolate").tolist() == [[0] * 10]
    assert longer(torch.tensor([0, 1, 1, 2]), 0, 0, 8, "copy") is None


def test_a_mask_by_distance_goes_on_and_another_is_none():
    def near(n):
        away = np.arange(n)[:, None] - np.arange(n)
        return torch.from_numpy((away >= 0) & (away < 3))

    assert torch.equal(banded(near(6), 9, 9), near(9))
    spotted = near(6).clone()
    spotted[4, 1] = True
    assert banded(spotted, 9, 9) is None


def test_sines_are_told_from_what_was_learned():
    table = sinusoids(16)
    found = frequencies_of(table)
    np.testing.assert_allclose(waves(table, 40, found).numpy(), sinusoids(40).numpy(), rtol=0, atol=1e-5)
    pairs = torch.stack([table[:, :4], table[:, 4:]], -1).flatten(1)
    assert frequencies_of(pairs) is not None
    assert frequencies_of(table + 0.01 * torch.randn(16, 8)) is None
    assert halved(table[:, :4])
    assert not halved(torch.randn(16, 4))


def test_frequencies_that_are_zero_stay():
    values = torch.tensor([1.0, 0.1, 0.01, 0.0])
    np.testing.assert_allclose(scaled(values, 4, "ntk").numpy(), [1.0, 0.05, 0.0025, 0], rtol=1e-6)
    np.testing.assert_allclose(scaled(values, 4, "linear").numpy(), values.numpy() / 4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("how=repeat", "how is 'repeat', and there is copy or interpolate"),
        ("rotary=yarn", "rotary is 'yarn', and there is linear or ntk"),
        ("length=0", "length is 0, and 1 at least"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(options, reason):
    with pytest.raises(PipelineError) as told:
        Pipeline.parse(f"extend-positions{{{options}}}")
    assert reason in str(told.value)


def test_a_window_stands_over_more_places_and_layers_are_pruned_after_it():
    steps = "substitute-attention{kind=window,window=8},prune-ffn,to-onnx"
    done = run(
        f"extend-positions{{length={LONG}}},{steps}", zoo.fx_program("bert"), calibration=[inputs("bert", 9)]
    )
    assert done.ok, [str(step.error) for step in done.steps]
    assert done.program.dialect == "onnx"
    feed = inputs("bert", LONG)
    assert all(np.isfinite(value).all() for value in outputs(done.program, feed).values())
