"""Fixed patterns: which keys the papers say, beginnings of longer ones, full attention at their limits, and
the same numbers from blocks of them alone."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.errors import PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import feed
from graphwright.passes.attend.kinds import kind
from graphwright.passes.manager.pipeline import Pipeline
from pruning import run
from tokens import batch, pooled

LONGEST = 61
CASES = {
    "window": {"window": 2, "dilation": 3, "global_tokens": 2},
    "block": {"block": 4, "neighbours": 1},
    "strided": {"stride": 5},
    "fixed": {"stride": 5, "form": "fixed", "summary": 2},
    "axial": {"width": 7, "global_tokens": 1},
    "random": {"block": 4, "blocks": 2},
    "bigbird": {"block": 4, "neighbours": 1, "global_tokens": 5, "blocks": 2},
    "etc": {"window": 3, "global_tokens": 4},
    "segments": {"window": 3, "global_tokens": 4, "segment": 8},
}
NAMES = {"fixed": "strided", "segments": "etc"}
FULL = {
    "window": {"window": 60},
    "block": {"block": 61},
    "strided": {"stride": 1},
    "fixed": {"stride": 3, "form": "fixed", "summary": 3},
    "axial": {"width": 61},
    "random": {"block": 4, "blocks": 15},
    "bigbird": {"block": 4, "blocks": 15, "global_tokens": 0},
    "etc": {"window": 60},
    "segments": {"global_tokens": 61, "segment": 2},
}


def shown(name, options, length, causal=False, longest=LONGEST, seed=0):
    made = kind(NAMES.get(name, name), options)
    site = SimpleNamespace(causal=causal, longest=longest)
    own = made.own(site, None, torch.Generator().manual_seed(seed))
    places = torch.arange(length)
    found = made.sees(places[:, None], places[None], own, causal).numpy()
    return found & np.tri(length, dtype=bool) if causal else found


# As the papers say it, query by query.
def window(i, j):
    return (abs(i - j) <= 6 and (i - j) % 3 == 0) or i < 2 or j < 2


def block(i, j):
    return j // 4 in (i // 4 - 1, i // 4, i // 4 + 1)


def strided(i, j):
    return abs(i - j) < 5 or (i - j) % 5 == 0


def fixed(i, j):
    return i // 5 == j // 5 or j % 5 in (3, 4)


def axial(i, j):
    if i == 0 or j == 0:
        return True
    (a, b), (c, d) = divmod(i - 1, 7), divmod(j - 1, 7)
    return a == c or b == d


def etc(i, j):
    return i < 4 or j < 4 or abs(i - j) <= 3


def segments(i, j):
    if i < 4 and j < 4:
        return True
    if i < 4 or j < 4:
        memory, place = min(i, j), max(i, j)
        return 4 + 8 * memory <= place < 4 + 8 * (memory + 1)
    return abs(i - j) <= 3


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rule", [window, block, strided, fixed, axial, etc, segments])
def test_queries_see_the_keys_that_the_papers_say(rule, causal):
    wanted = np.array(
        [[rule(i, j) and (j <= i or not causal) for j in range(LONGEST)] for i in range(LONGEST)]
    )
    assert (shown(rule.__name__, CASES[rule.__name__], LONGEST, causal) == wanted).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["random", "bigbird"])
def test_blocks_are_drawn_for_each_block_of_queries(name, causal):
    found = shown(name, CASES[name], 60, causal)
    blocks = found.reshape(15, 4, 15, 4).any((1, 3))
    other = shown(name, CASES[name], 60, causal, seed=1)
    assert (other != found).any()
    for row in range(2, 15):
        near = {row} if name == "random" else {0, 1, row - 1, row, row + 1}  # 5 global places
        drawn = set(np.flatnonzero(blocks[row])) - near
        assert len(drawn) <= 2
        if causal:
            assert max(drawn, default=0) < row
            assert name == "bigbird" or len(drawn) == 2
    # Each whole, but for the keys after a query and global tokens that end within a block.
    if name == "random" and not causal:
        assert (found == np.kron(blocks, np.ones((4, 4), bool))).all()
        assert blocks.sum(1).mean() > 2.3


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_pattern_is_the_beginning_of_a_longer_one_and_shows_the_query_itself(name, causal):
    whole = shown(name, CASES[name], LONGEST, causal)
    assert whole.diagonal().all()
    assert not whole[np.tri(LONGEST, dtype=bool)].all()
    for length in (1, 3, 4, 5, 37):
        assert (shown(name, CASES[name], length, causal) == whole[:length, :length]).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", FULL)
def test_at_its_limit_a_pattern_shows_all(name, causal):
    whole = np.tri(LONGEST, dtype=bool) if causal else np.ones((LONGEST, LONGEST), bool)
    assert (shown(name, FULL[name], LONGEST, causal) == whole).all()


def test_what_is_drawn_without_a_longest_text_goes_on_behind_what_was_drawn():
    found = shown("random", {"block": 1, "blocks": 2}, 1500, longest=None)
    assert (found[1024:, 1024:] == found[:476, :476]).all()
    assert found.diagonal().all()
    assert found[1024:, :1024].sum() == 0


def vectors(program, lengths, left=False):
    return execute(program, [batch(program, lengths, left)])[0][program.outputs[0]]


def options(name):
    kind_ = NAMES.get(name, name)
    return ",".join([f"kind={kind_}", *(f"{key}={value}" for key, value in CASES[name].items())])


@cache
def substituted(model, name):
    done = run(f"substitute-attention{{{options(name)},layers=(0,)}}", pooled(model))
    assert done.ok, done.steps[0].error
    return done.program


@pytest.mark.parametrize(
    ("model", "name", "block"),
    [("bert", "block", 4), ("bert", "bigbird", 4), ("gpt2", "random", 4), ("bert", "segments", 2)],
)
def test_blocks_of_a_pattern_give_what_its_mask_gives(model, name, block):
    program = substituted(model, name)
    done = run(f"block-attention{{block={block},layers=(0,)}}", program)
    assert done.steps[0].statistics["attentions in blocks"] == "1 of 2"
    for lengths in ((1,), (3, 1), (4,), (5, 2), (61, 40, 9)):
        for left in (False, True):
            wanted = vectors(program, lengths, left)
            np.testing.assert_allclose(vectors(done.program, lengths, left), wanted, rtol=0, atol=2e-6)


def test_a_table_of_blocks_in_onnx_runtime():
    program = substituted("bert", "bigbird")
    done = run("block-attention{block=4,layers=(0,)},to-onnx", program)
    assert done.program.dialect == "onnx"
    for lengths in ((1,), (4,), (5, 2), (61, 40, 9)):
        wanted = vectors(program, lengths)
        np.testing.assert_allclose(vectors(done.program, lengths), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "share"), [("strided", "100%"), ("axial", "100%"), ("fixed", "100%")])
def test_what_reaches_into_every_block_is_left_with_the_share_of_blocks(name, share):
    step = run("block-attention{block=4,layers=(0,)}", substituted("bert", name)).steps[0]
    assert step.status == "no change"
    assert f"blocks of 4 that hold its pattern are {share} of all at 64 places" in step.notes[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kind=strided,form=loose", "form is 'loose', and there are 'strided' and 'fixed'"),
        ("kind=strided,form=fixed,stride=4,summary=5", "summary is 5, and a stretch has 4 places"),
        ("kind=axial,width=0", "width is 0, and 1 at least"),
        ("kind=bigbird,blocks=-1", "blocks is -1, and 0 at least"),
        ("kind=etc,global_tokens=0", "global_tokens is 0, and 1 at least"),
        ("kind=bigbrid", "did you mean 'bigbird'"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(text, reason):
    with pytest.raises(PipelineError, match=None) as told:
        Pipeline.parse(f"substitute-attention{{{text}}}")
    assert reason in str(told.value)


@pytest.mark.parametrize("name", ["block", "random", "bigbird"])
def test_a_block_longer_than_every_text_is_refused(name):
    step = run(f"substitute-attention{{kind={name},block=65}}", pooled("bert")).steps[0]
    assert "a block of 65 places is longer than the longest text, which has 64" in str(step.error)


def test_an_image_has_one_length_and_no_mask():
    program = zoo.fx_program("vit")
    masked = run("substitute-attention{kind=block,block=2,layers=(1,)}", program).program
    done = run("block-attention{block=2}", masked)
    assert done.steps[0].statistics["attentions in blocks"] == "1 of 2"
    assert "it looks at all keys, as far as 10 places" in done.steps[0].notes[0]
    arrays = feed(program, {"batch": 3})
    wanted, found = (execute(each, [arrays])[0] for each in (masked, done.program))
    for name in program.outputs:
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=2e-6)


def test_a_table_needs_a_longest_text():
    step = run("block-attention{block=4,layers=(0,)}", substituted("llama", "random")).steps[0]
    assert step.status == "no change"
    reason = (
        "its pattern is no window, a table of its blocks is for 8192 places, and nothing bounds the length"
    )
    assert reason in step.notes[0]


def test_a_layer_that_pruning_left_one_head():
    program = pooled("bert")
    text = "prune-heads{ratio=0.5},substitute-attention{kind=block,block=4}"
    feeds = [batch(program, (33, 20, 9), seed=seed) for seed in range(2)]
    masked = run(text, program, calibration=feeds, training=feeds)
    assert "1" in masked.steps[0].statistics["heads left by layer"].split()
    assert masked.steps[1].statistics["attentions substituted"] == "2 of 2"
    done = run("block-attention{block=4}", masked.program)
    assert done.steps[0].statistics["attentions in blocks"] == "2 of 2"
    wanted = vectors(masked.program, (61, 40, 9))
    np.testing.assert_allclose(vectors(done.program, (61, 40, 9)), wanted, rtol=0, atol=2e-6)
