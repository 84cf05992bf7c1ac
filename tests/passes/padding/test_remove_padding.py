"""remove-padding against the padded graph: equal where the mask is 1, zero elsewhere, whatever the mask."""

import dataclasses

import numpy as np
import onnx_ir
import pytest
from graphwright.ir.execute import execute
from graphwright.passes.manager.contract import Context
from graphwright.passes.padding.remove_padding import RemovePadding
from hypothesis import given, settings
from hypothesis import strategies as st
from turned import turned
from zoo import onnx_program

pytestmark = pytest.mark.slow  # most of it the export of ten architectures

TOLERANCE = 2e-6  # float32 rounding through two layers of width 32


def packed(program):
    return RemovePadding().run(program.clone(), Context())


def feeds(program, masks, seed=0):
    """Random ids under the given (batch, length) masks, the same masks for a decoder."""
    generator, feed = np.random.default_rng(seed), {}
    for spec in program.inputs:
        if spec.role in ("attention_mask", "decoder_attention_mask"):
            feed[spec.name] = spec.masking(masks)
        else:
            feed[spec.name] = generator.integers(0, spec.high or 2, masks.shape).astype(spec.dtype)
    return [feed]


def compare(program, after, masks):
    feed = feeds(program, masks)
    expected, found = execute(program, feed)[0], execute(after, feed)[0]
    for name, reference in expected.items():
        if reference.shape[:2] == masks.shape:
            np.testing.assert_allclose(found[name][masks], reference[masks], atol=TOLERANCE, rtol=0)
            assert not found[name][~masks].any(), f"{name} is not zero on padding"
        else:
            np.testing.assert_allclose(found[name], reference, atol=TOLERANCE, rtol=0)


RAGGED = np.array([[1] * 9, [1] * 4 + [0] * 5, [1] + [0] * 8, [0] * 3 + [1] * 6], bool)

# name -> token-wise projections of two layers: q, k, v, o, up, (gate,) down, and the head or pooler per token
PACKED = {
    "bert": 12,
    "roberta": 12,
    "distilbert": 12,
    "electra": 13,
    "mobilebert": 23,  # words are joined with their neighbours, padding among them, before the first
    "mpnet": 12,
    "modernbert": 8,
    "llama": 15,
    "qwen3": 15,
    "opt": 13,
}


@pytest.mark.parametrize("name", PACKED)
def test_every_projection_runs_on_real_tokens(name):
    program = onnx_program(name)
    result = packed(program)
    assert result.modified, result.notes
    assert result.statistics["projections on real tokens"] == PACKED[name], result.notes
    compare(program, result.program, RAGGED[:3] if name in ("llama", "qwen3", "opt") else RAGGED)


def test_eager_attention_too():
    program = onnx_program("bert", "eager")
    result = packed(program)
    assert result.statistics["projections on real tokens"] == PACKED["bert"]
    compare(program, result.program, RAGGED)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda batch: st.integers(1, 12).flatmap(
            lambda length: st.lists(
                st.lists(st.booleans(), min_size=length, max_size=length).filter(any),
                min_size=batch,
                max_size=batch,
            )
        )
    )
)
def test_any_mask_with_a_token_in_each_row(rows):
    program = onnx_program("bert")
    compare(program, packed(program).program, np.array(rows))


def test_a_row_of_padding_alone_does_not_disturb_the_others():
    program = onnx_program("bert")
    masks = RAGGED.copy()
    masks[2] = False
    compare(program, packed(program).program, masks)


def test_the_input_program_is_left_alone():
    program = onnx_program("bert")
    before = program.fingerprint()
    packed(program)
    assert program.fingerprint() == before


def test_two_runs_give_the_same_bytes():
    texts = [
        onnx_ir.serde.serialize_model(packed(onnx_program("bert")).program.graph).SerializeToString(
            deterministic=True
        )
        for _ in range(2)
    ]
    assert texts[0] == texts[1]


def test_no_mask_is_said():
    program = onnx_program("vit")
    result = packed(program)
    assert not result.modified
    assert result.notes == ("no attention mask among the inputs: no padding is known of",)


def test_attention_that_sees_padding_is_refused():
    """An attention whose keys are not masked would change: nothing is rewritten and the note says where."""
    program = onnx_program("bert")
    graph = program.graph.clone()
    mask = next(value for value in graph.graph.inputs if value.name == "attention_mask")
    free = onnx_ir.Value(name="other_mask", type=mask.type, shape=mask.shape)
    mask.replace_all_uses_with(free)
    graph.graph.inputs.append(free)
    spec = next(spec for spec in program.inputs if spec.name == "attention_mask")
    other = dataclasses.replace(spec, name="other_mask", role="other")
    result = RemovePadding().run(
        dataclasses.replace(program, graph=graph, inputs=(*program.inputs, other)), Context()
    )
    assert not result.modified
    assert "looks at padded keys" in result.notes[0]


def test_fixed_shapes_are_said():
    program = onnx_program("bert")
    fixed = tuple(dataclasses.replace(spec, shape=(1, 8)) for spec in program.inputs)
    result = RemovePadding().run(dataclasses.replace(program.clone(), inputs=fixed), Context())
    assert not result.modified
    assert "is fixed" in result.notes[0]


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_mask_that_is_1_for_padding_packs_as_much(name):
    program = turned(onnx_program(name))
    assert next(spec.hidden for spec in program.inputs if spec.role == "attention_mask") == 1
    result = packed(program)
    assert result.statistics["projections on real tokens"] == PACKED[name]
    compare(program, result.program, RAGGED)
    assert RemovePadding().pays(program, feeds(program, RAGGED)[0])
    assert not RemovePadding().pays(program, feeds(program, RAGGED[:1])[0])
