"""A sentence encoder small enough to build in a millisecond: embeddings, masked mean, a dense layer."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir
import pytest
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec

VOCABULARY, WIDTH = 40, 16
_GRAPH = """<ir_version: 9, opset_import: ["" : 18]>
encoder (int64[batch,length] input_ids, int64[batch,length] attention_mask) => (float[batch,16] embedding) {
    words = Gather (table, input_ids)
    mask = Cast <to=1> (attention_mask)
    axis = Constant <value_ints=[2]> ()
    column = Unsqueeze (mask, axis)
    kept = Mul (words, column)
    along = Constant <value_ints=[1]> ()
    total = ReduceSum <keepdims=0> (kept, along)
    count = ReduceSum <keepdims=1> (mask, along)
    mean = Div (total, count)
    embedding = MatMul (mean, dense)
}"""


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "table": rng.standard_normal((VOCABULARY, WIDTH)).astype(np.float32),
        "dense": rng.standard_normal((WIDTH, WIDTH)).astype(np.float32),
    }


def expected(arrays, feed):
    """What the encoder computes, in float64 NumPy."""
    words = arrays["table"].astype(np.float64)[feed["input_ids"]] * feed["attention_mask"][..., None]
    mean = words.sum(1) / feed["attention_mask"].sum(1, keepdims=True)
    return mean @ arrays["dense"]


def tokenizer_json():
    words = ["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"]
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    vocabulary = {word: i for i, word in enumerate(words)}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": truncation,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        }
    ).encode()


def encoder(arrays=None, **changes):
    """The program over the given weights."""
    proto = onnx.parser.parse_model(_GRAPH)
    for name, array in (arrays or weights()).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    program = Program(
        onnx_ir.from_proto(proto),
        "onnx",
        (
            InputSpec("input_ids", "int64", ("batch", "length"), "token_ids", VOCABULARY),
            InputSpec("attention_mask", "int64", ("batch", "length"), "attention_mask"),
        ),
        ("embedding",),
        "embedding",
        {"batch": (1, 64), "length": (1, 12)},
        {"tokenizer.json": tokenizer_json()},
        {"max_length": 8, "pad_token_id": 0},
    )
    return replace(program, **changes)


def a_feed(batch=2, length=5, padding=0, seed=0):
    """Random ids; the last `padding` positions of every row are masked."""
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (batch, length))
    mask = np.ones_like(ids)
    mask[:, length - padding :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture
def tiny():
    """(program, its weights, a feed, what must come out)."""
    arrays, feed = weights(), a_feed(padding=2)
    return encoder(arrays), arrays, feed, expected(arrays, feed)


@pytest.fixture(scope="session")
def make():
    """Functions that make variants: make.encoder, make.weights, make.feed, make.expected."""
    return SimpleNamespace(
        encoder=encoder, weights=weights, feed=a_feed, expected=expected, tokenizer_json=tokenizer_json
    )


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    """The directory of a C runner, built once."""
    import c_runner  # which children that import this file for its encoder don't find

    return c_runner.built(tmp_path_factory)
