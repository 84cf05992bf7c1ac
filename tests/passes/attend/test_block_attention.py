"""block-attention: the same numbers as from the masks, nothing n x n, and what is left with its reason."""

import re
from functools import cache

import numpy as np
import pytest
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import feed
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.attend.block_attention import BlockAttention
from graphwright.passes.lower.timed.timing import Timing
from graphwright.passes.manager.contract import Ratio
from handmade import golden
from one_layer import one_layer
from pruning import run
from tokens import batch, pooled

BLOCK = 4
PATTERNS = {
    "bert": "window=2,dilation=2",
    "llama": "window=6,global_tokens=2",
    "albert": "window=3,global_tokens=6",
    "modernbert": None,  # its second layer looks at a window of its own
}


NAME, SLOW = "reshape_default_1", "with it a call is 0.90 times as fast at best"


@cache
def masked(name):
    options = PATTERNS[name]
    if options is None:
        return pooled(name)
    done = run(f"substitute-attention{{kind=window,{options}}}", pooled(name))
    assert done.ok, done.steps[0].error
    return done.program


@cache
def blocked(name):
    done = run(f"block-attention{{block={BLOCK}}}", masked(name))
    assert all(step.status == "applied" for step in done.steps), [step.error for step in done.steps]
    return done


def vectors(program, lengths, left=False):
    return execute(program, [batch(program, lengths, left)])[0][program.outputs[0]]


@pytest.mark.parametrize("name", PATTERNS)
def test_blocks_give_what_the_masks_give(name):
    for lengths in ((1,), (BLOCK - 1, 1), (BLOCK,), (BLOCK + 1, 2), (61, 40, 9)):
        for left in (False, True):
            wanted = vectors(masked(name), lengths, left)
            found = vectors(blocked(name).program, lengths, left)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


def test_onnx_runtime_gives_the_same():
    lowered = run("to-onnx", blocked("albert").program).program
    assert lowered.dialect == "onnx"
    for lengths in ((1,), (BLOCK,), (BLOCK + 1, 2), (61, 40, 9)):
        wanted = vectors(masked("albert"), lengths)
        np.testing.assert_allclose(vectors(lowered, lengths), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "albert"])
def test_no_value_has_numbers_for_each_pair_of_places(name):
    def pairs(program):
        shapes = [value.shape or () for value in view(program)]
        return [shape for shape in shapes if sum("length" in str(size) for size in shape) > 1]

    assert pairs(masked(name))
    assert pairs(blocked(name).program) == []
    assert recognise(view(blocked(name).program)).attention == ()


def test_a_block_may_be_longer_than_texts_and_lengths_stay_free():
    """The graph was captured with a text of one block."""
    program = one_layer(window=8)
    done = run("block-attention{block=64},to-onnx", program)
    assert done.steps[0].statistics == {"attentions in blocks": "1 of 1", "keys a query": "192"}
    for lengths in ((1,), (64,), (65, 3), (300, 200)):
        wanted = vectors(program, lengths)
        np.testing.assert_allclose(vectors(done.program, lengths), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("bert", "", "it looks at all keys, as far as 64 places"),
        ("gpt2", "", "it looks at all keys, as far as 64 places"),
        ("t5", "", "a position bias is added to its scores"),
        ("bert", "window=30", "blocks of 4 that hold its pattern are 100% of all at 64 places"),
    ],
)
def test_what_is_left_is_left_with_its_reason(name, options, reason):
    program = pooled(name)
    if options:
        program = run(f"substitute-attention{{kind=window,{options}}}", program).program
    step = run(f"block-attention{{block={BLOCK}}}", program).steps[0]
    assert step.status == "no change"
    (note,) = step.notes
    assert f" and 1 more (0, 1): {reason}" in note


def test_layers_are_chosen():
    step = run(f"block-attention{{block={BLOCK},layers=(1,)}}", masked("bert")).steps[0]
    assert step.statistics["attentions in blocks"] == "1 of 2"
    assert step.notes == ()
    step = run("block-attention{layers=(4,)}", masked("bert")).steps[0]
    assert "there is no layer 4" in str(step.error)


@pytest.mark.parametrize(("speed", "count"), [(0.9, "0 of 2"), (1.5, "2 of 2")])
def test_only_what_measures_faster_is_kept(speed, count, monkeypatch):
    timed = []
    monkeypatch.setattr(Timing, "_lowered", lambda self, program: program)

    def measure(before, after, **asked):
        timed.append(len(recognise(view(before)).attention) - len(recognise(view(after)).attention))
        return {"short": Ratio(0.5, 0.4, 0.6), "long": Ratio(speed, speed, speed)}

    step = run(f"block-attention{{block={BLOCK}}}", masked("bert"), measure=measure).steps[0]
    assert timed == [2]  # layers of one pattern together
    assert step.statistics["attentions in blocks"] == count
    assert step.notes == (() if speed > 1 else (f"{NAME} and 1 more (0, 1): {SLOW}",))
    # What each workload gained goes to whoever makes graphs for each.
    assert {name: ratio.median for name, ratio in step.ratios.items()} == (
        {"short": 0.5, "long": 1.5} if speed > 1 else {}
    )


def test_calls_of_two_blocks_do_without():
    program = pooled("bert")
    paying = [BlockAttention(BLOCK).pays(program, batch(program, lengths)) for lengths in ((8, 3), (9,))]
    assert paying == [False, True]


@pytest.mark.parametrize(
    ("name", "length", "gains"),
    [
        ("modernbert", 9, True),
        ("modernbert", 8, False),
        ("bert", 64, False),
        ("t5", 64, False),
        ("vit", 1, False),
    ],
)
def test_it_is_told_beforehand_whether_calls_can_gain(name, length, gains):
    """Of blocks of 4: from nine tokens on, where an attention hides any from the last one."""
    program = zoo.fx_program("vit") if name == "vit" else pooled(name)
    given = feed(program, {"batch": 2}) if name == "vit" else batch(program, (length, 3))
    before = program.fingerprint()
    assert BlockAttention(BLOCK).worthwhile(program, [given]) == gains
    assert program.fingerprint() == before


def test_golden():
    program = masked("bert")
    after = run(f"block-attention{{block={BLOCK},layers=(0,)}}", program).program
    shown = [re.sub(r" #[0-9a-f]+", "", text(one)) for one in (program, after)]
    golden("attend/block-attention", "# before\n{}\n# after\n{}\n".format(*shown))
