"""substitute-attention: what is substituted, what is left and why, and that padding is never seen."""

import numpy as np
import pytest
from graphwright.ir.errors import PipelineError
from graphwright.ir.execute import execute
from graphwright.passes.manager.pipeline import Pipeline
from pruning import run
from tokens import alone, batch, pooled

LENGTHS = (11, 7, 3, 1)
TEXTS = ("bert", "roberta", "albert", "mpnet", "modernbert", "t5")


def vectors(program, feed):
    return execute(program, [feed])[0][program.outputs[0]]


def substituted(program, options):
    done = run(f"substitute-attention{{{options}}}", program)
    assert done.steps[0].status == "applied", done.steps[0].error
    return done.program


@pytest.mark.parametrize("name", TEXTS)
def test_a_window_as_long_as_the_text_is_full_attention(name):
    program = pooled(name)
    feed = batch(program, LENGTHS)
    wide, narrow = (substituted(program, f"kind=window,window={window}") for window in (10, 1))
    wanted = vectors(program, feed)
    np.testing.assert_allclose(vectors(wide, feed), wanted, rtol=0, atol=1e-5)
    assert np.abs(vectors(narrow, feed) - wanted).max() > 1e-3


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_layers_share_a_mask_that_no_layer_is_needed_for(name):
    """Sizes read off a layer's queries would make its mask one of its own, behind all layers before it."""
    after = substituted(pooled(name), "kind=window,window=3,global_tokens=1")
    masks = {
        node.args[3] for node in after.graph.graph.nodes if "scaled_dot_product_attention" in str(node.target)
    }
    (mask,) = masks
    above, stack = {mask}, [mask]
    while stack:
        above.update(stack[-1].all_input_nodes)
        stack = [*stack[:-1], *stack[-1].all_input_nodes]
    assert not [node for node in above if "linear" in str(node.target) or "sdpa" in str(node.target)]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_the_vector_of_a_text_does_not_depend_on_its_batch(attn, left):
    after = substituted(pooled("bert", attn=attn), "kind=window,window=1,global_tokens=1")
    feed = batch(after, LENGTHS, left)
    if left:  # positions count from the left
        feed["position_ids"] = np.maximum(feed["attention_mask"].cumsum(1) - 1, 0)
        feed = {name: array for name, array in feed.items() if name in {s.name for s in after.inputs}}
    together = vectors(after, feed)
    assert np.isfinite(together).all()
    if not left:
        rows = [vectors(after, alone(after, feed, row))[0] for row in range(len(LENGTHS))]
        np.testing.assert_allclose(together, np.array(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("kind=windw", "did you mean 'window'"),
        ("kind=memory", "it is a pass of its own: segment-memory"),
        ("kind=linear,window=3", "has no option 'window': it has chunk"),
        ("kind=window,window=-1", "window is -1, and 0 at least"),
        ("kind=window,layers=(0,0)", "each once"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(options, reason):
    with pytest.raises(PipelineError, match=None) as told:
        Pipeline.parse(f"substitute-attention{{{options}}}")
    assert reason in str(told.value)


def test_layers_are_chosen_and_a_layer_that_is_not_there_is_named():
    program = pooled("bert")
    done = run("substitute-attention{kind=window,window=1,layers=(1,)}", program)
    assert done.steps[0].statistics["attentions substituted"] == "1 of 2"
    done = run("substitute-attention{kind=window,layers=(7,)}", program)
    assert "there is no layer 7: self-attentions are numbered 0 to 1" in str(done.steps[0].error)


def test_a_position_bias_keeps_scores_that_a_kind_has_no_place_for():
    done = run("substitute-attention{kind=linear}", pooled("t5"))
    assert "a position bias is added to its scores" in str(done.steps[0].error)
