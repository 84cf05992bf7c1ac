"""segment-memory: long texts in segments are what they are whole, and what is forgotten is not seen."""

import functools
import math

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.errors import PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.inputs.memory import following
from graphwright.passes.attend.memory.state import Memory
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from pruning import run
from torch import nn
from torch.nn import functional

SLOW = pytest.mark.slow
MODELS = [("nanogpt", "sdpa"), ("gpt2", "eager"), ("llama", "sdpa"),
          pytest.param("opt", "sdpa", marks=SLOW), pytest.param("qwen3", "sdpa", marks=SLOW)]  # fmt: skip


@functools.cache
def remembering(name, options, attn="sdpa"):
    done = Pipeline.parse(f"segment-memory{{{options}}}").run(
        zoo.fx_program(name, attn), Context(), verify=False
    )
    assert done.steps[0].status == "applied", done.steps[0].error
    return done.program


def texts(program, rows, length, seed=0):
    (ids,) = (spec for spec in program.inputs if spec.role == "token_ids")
    return np.random.default_rng(seed).integers(5, ids.high, (rows, length))


def feed(program, ids, keep=None):
    keep = np.ones(ids.shape, bool) if keep is None else keep
    given = {"input_ids": ids, "attention_mask": keep.astype(np.int64)}
    return {spec.name: given[spec.name] for spec in program.inputs if spec.name in given}


def read(program, ids, cuts):
    """The first output over a text that is read segment by segment, and the memory after it."""
    found, held = [], {}
    for start, end in zip((0, *cuts), (*cuts, ids.shape[1]), strict=True):
        (outputs,) = execute(program, [{**feed(program, ids[:, start:end]), **held}])
        held = following(program.inputs, outputs)
        found.append(outputs[program.outputs[0]])
    return np.concatenate(found, 1), held


@pytest.mark.parametrize(("name", "attn"), MODELS)
def test_segments_are_the_whole_text_where_all_of_it_is_remembered(name, attn):
    program = remembering(name, "length=16", attn)
    ids = texts(program, 2, 21)
    (whole,) = execute(zoo.fx_program(name, attn), [feed(program, ids)])
    for cuts in ((5, 6, 16), (16,), (1, 2, 3, 4)):
        found, _ = read(program, ids, cuts)
        np.testing.assert_allclose(found, whole[program.outputs[0]], rtol=0, atol=1e-5)


def reference(name, ids, cuts, length):
    """The whole text in float64, each token seeing its segment and so many tokens before that: what a token's
    keys are made of was remembered when it was read, so one mask serves all layers."""
    import transformers

    places = np.arange(ids.shape[1])
    begin = np.array([max(cut for cut in (0, *cuts) if cut <= place) for place in places])
    seen = (places <= places[:, None]) & (places >= begin[:, None] - length)
    bias = torch.from_numpy(np.where(seen, 0.0, np.finfo(np.float64).min))[None, None]
    given = {"input_ids": torch.from_numpy(ids), "attention_mask": bias.expand(len(ids), 1, -1, -1)}
    if name == "gpt2":  # a table's places: those in the window
        given["position_ids"] = torch.from_numpy(places - begin + np.minimum(begin, length))[None]
    model = zoo.ARCHITECTURES[name].build("eager").double()
    assert isinstance(model, transformers.PreTrainedModel)
    with torch.no_grad():
        return model(**given).logits.numpy()


@pytest.mark.parametrize(("name", "length"), [("gpt2", 1), ("gpt2", 4), ("llama", 7)])
def test_what_is_forgotten_is_not_seen(name, length):
    program, cuts = remembering(name, f"length={length}"), (6, 7, 12, 21)
    ids = texts(program, 2, 30)
    found, held = read(program, ids, cuts)
    np.testing.assert_allclose(found, reference(name, ids, cuts, length), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(held["memory_count"], [30, 30])


@pytest.mark.parametrize("options", ["length=5", "length=3,compressed=4,rate=3"])
@pytest.mark.parametrize("left", [False, True])
def test_a_text_in_a_padded_batch_is_what_it_is_alone(left, options):
    program = remembering("llama", options)
    ids, held, taken = texts(program, 3, 40), {}, np.zeros(3, int)
    rows: list[dict] = [{}, {}, {}]
    for counts in ((4, 2, 0), (1, 5, 5), (0, 3, 9), (6, 6, 1), (2, 7, 7)):
        longest = max(counts)
        batch, keep = np.zeros((3, longest), np.int64), np.zeros((3, longest), bool)
        for row, count in enumerate(counts):
            places = slice(longest - count, longest) if left else slice(0, count)
            batch[row, places], keep[row, places] = ids[row, taken[row] : taken[row] + count], True
        (outputs,) = execute(program, [{**feed(program, batch, keep), **held}])
        assert all(np.isfinite(array).all() for array in outputs.values())
        held = following(program.inputs, outputs)
        for row, count in enumerate(counts):
            if not count:
                continue
            own = feed(program, ids[row : row + 1, taken[row] : taken[row] + count])
            (single,) = execute(program, [{**own, **rows[row]}])
            rows[row] = following(program.inputs, single)
            np.testing.assert_allclose(
                outputs["logits"][row][keep[row]], single["logits"][0], rtol=0, atol=1e-5
            )
        taken += counts
        for row, own in enumerate(rows):  # and so is what it leaves
            for name, array in own.items():
                np.testing.assert_allclose(held[name][row], array[0], rtol=0, atol=1e-5)


class Remembered:
    """A memory in lists: recent tokens, and means of `rate` older ones."""

    def __init__(self, memory):
        self.memory, self.recent, self.means = memory, [], []

    def take(self, tokens):
        self.recent += list(tokens)
        while len(self.recent) - self.memory.whole >= self.memory.rate:
            group, self.recent = self.recent[: self.memory.rate], self.recent[self.memory.rate :]
            self.means.append(np.mean(group, 0))
        self.means = self.means[-self.memory.compressed :] if self.memory.compressed else []


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("sizes", [(4, 0, 1), (1, 0, 1), (3, 5, 1), (3, 2, 4), (1, 3, 2), (6, 1, 3)])
def test_a_memory_holds_the_last_tokens_and_means_of_those_before(sizes, left):
    memory, rng = Memory(*sizes), np.random.default_rng(0)
    wanted, held = [Remembered(memory), Remembered(memory)], torch.zeros(2, memory.places, 3)
    count = torch.zeros(2, dtype=torch.int64)
    for lengths in ((1, 2), (3, 0), (5, 9), (0, 1), (2, 2), (13, 4), (1, 1), (1, 1)):
        longest = max(lengths)
        keep = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
        keep = keep.flip(1) if left else keep
        segment = torch.from_numpy(rng.standard_normal((2, longest, 3)).astype(np.float32))
        fresh = keep.sum(1)
        order = memory.order(count, keep, longest)
        found = memory.sources(count, order, fresh)
        both, new, count = torch.cat([held, segment], 1), memory.new(count, fresh), count + fresh
        held = memory.next(both, found, new, count)
        seen, at = memory.remembered(count)
        assert not held[~seen].any()
        for row, each in enumerate(wanted):
            each.take(segment[row][keep[row]].numpy())
            vectors = [*each.means, *each.recent]
            np.testing.assert_allclose(held[row][seen[row]], np.reshape(vectors, (-1, 3)), rtol=0, atol=1e-6)
            means = [i * memory.rate + (memory.rate - 1) // 2 for i in range(len(each.means))]
            tokens = [len(means) * memory.rate + i for i in range(len(each.recent))]
            assert at[row][seen[row]].tolist() == means + tokens
            assert memory.ahead(count)[row] == len(means) * memory.rate + len(tokens) <= memory.span


def test_means_of_one_token_are_a_memory_of_so_many_more():
    plain, means = (remembering("llama", options) for options in ("length=7", "length=3,compressed=4"))
    ids = texts(plain, 2, 33)
    (one, held), (two, _) = (read(program, ids, (5, 11, 12, 26)) for program in (plain, means))
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)
    assert held["memory_keys_0"].shape == (2, 7, 16)


class Layer(nn.Module):
    """One causal attention without positions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x):
        q, k, v = (p(x).unflatten(2, (3, 4)).transpose(1, 2) for p in (self.q, self.k, self.v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).flatten(2))


def test_a_mean_weighs_as_many_keys_as_it_is_of():
    module, memory = Layer().eval(), Memory(2, 2, 3)
    program = capture(module, inputs={"x": torch.randn(2, 5, 12)})
    done = run("segment-memory{length=2,compressed=2,rate=3}", program)
    assert done.steps[0].status == "applied", done.steps[0].error
    x = np.random.default_rng(0).standard_normal((20, 12)).astype(np.float32)
    held, kept = {}, Remembered(memory)
    weight = {n: p.detach().double().numpy() for n, p in module.named_parameters()}
    project = lambda name, rows: rows @ weight[f"{name}.weight"].T + weight[f"{name}.bias"]
    for start in range(0, 20, 4):
        part = x[start : start + 4]
        (outputs,) = execute(done.program, [{"x": part[None], **held}])
        held = following(done.program.inputs, outputs)
        old = np.reshape([*kept.means, *kept.recent], (-1, 12))
        bias = np.array([math.log(3)] * len(kept.means) + [0] * (len(kept.recent) + 4))
        rows = np.concatenate([old, part]).astype(np.float64)
        q, k, v = (
            project(name, r).reshape(len(r), 3, 4)
            for name, r in (("q", part.astype(float)), ("k", rows), ("v", rows))
        )
        scores = np.einsum("ihd,jhd->hij", q, k) / 2 + bias
        scores = np.where(np.arange(len(rows)) <= len(old) + np.arange(4)[:, None], scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hij,jhd->ihd", weights / weights.sum(-1, keepdims=True), v).reshape(4, 12)
        np.testing.assert_allclose(outputs[program.outputs[0]][0], project("o", mixed), rtol=0, atol=1e-5)
        kept.take(part)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", "length=3,compressed=4,rate=3"),
        pytest.param("nanogpt", "length=5", marks=SLOW),
    ],
)
def test_onnx_runtime_agrees(name, options):
    program = remembering(name, options)
    lowered = run("to-onnx", program)  # compared on memories that are full, half full and empty
    assert lowered.steps[0].status == "applied", lowered.steps[0].error
    ids = texts(program, 2, 19)
    (wanted, held), (found, kept) = (read(each, ids, (4, 5, 12)) for each in (program, lowered.program))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    for memory in held:
        np.testing.assert_allclose(kept[memory], held[memory], rtol=0, atol=1e-5)


def test_a_first_segment_is_held_to_what_it_was_and_inputs_are_behind_the_others():
    program = zoo.fx_program("gpt2")
    done = run("segment-memory{length=16}", program)
    (step,) = done.steps
    assert (step.status, step.unverified) == ("applied", "")
    assert step.statistics["longest segment"] == 48 == done.program.symbols["length"][1]
    names = [spec.name for spec in done.program.inputs]
    assert names[:4] == ["input_ids", "attention_mask", "memory_count", "memory_keys_0"]
    assert done.program.outputs[:3] == ("logits", "new_memory_count", "new_memory_keys_0")
    assert [spec.given_by for spec in done.program.inputs[2:]] == list(done.program.outputs[1:])
    assert "places come from a table: behind 16 tokens" in step.notes[0]
    again = run("segment-memory", done.program)
    assert "it has a memory already" in str(again.steps[0].error)


class Summed(nn.Module):
    """A causal model in which more than keys and values goes from token to token."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = Layer()

    def forward(self, x):
        return self.layer(x) + x.cumsum(1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bert", "it looks ahead, and a memory is for models that look back only"),
        ("t5", "it looks ahead"),
        ("gemma2", "its scores are capped or gated"),
    ],
)
def test_where_there_can_be_none_the_reason_is_told_and_nothing_changes(name, reason):
    program = zoo.fx_program(name)
    done = run("segment-memory{length=4}", program)
    assert done.steps[0].status == "refused"
    assert reason in str(done.steps[0].error)
    assert done.program.fingerprint() == program.fingerprint()


def test_what_else_goes_on_in_a_text_is_noticed():
    program = capture(Summed().eval(), inputs={"x": torch.randn(2, 5, 12)})
    done = run("segment-memory{length=4}", program)
    assert "of a second segment is not what it is in the whole text" in str(done.steps[0].error)


def test_a_memory_as_long_as_the_longest_text_leaves_no_segment():
    done = run("segment-memory{length=40}", zoo.fx_program("nanogpt"))
    assert "texts have 40 places at most and the memory takes 40 of them" in str(done.steps[0].error)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("length=0", "length is 0, and 1 at least"),
        ("compressed=-1", "compressed is -1, and 0 at least"),
        ("rate=2", "rate is 2, and nothing is compressed: give compressed"),
        ("lenght=3", "did you mean 'length'"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(options, reason):
    with pytest.raises(PipelineError) as told:
        Pipeline.parse(f"segment-memory{{{options}}}")
    assert reason in str(told.value)
