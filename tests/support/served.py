"""Bundles to serve: an encoder, a classifier and a reranker of letters; what each says, in float64 NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
from graphwright.backends.bundles.bundle import Variant, write
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WIDTH, LONGEST, LABELS = 16, 32, ("bad", "fair", "good")
_GRAPH = """<ir_version: 9, opset_import: ["" : 18]>
letters (
    int64[batch,length] input_ids, int64[batch,length] attention_mask, int64[batch,length] token_type_ids
) => (float[batch,{width}] {output}) {{
    words = Gather (table, input_ids)
    kinds = Gather (types, token_type_ids)
    typed = Mul (words, kinds)
    mask = Cast <to=1> (attention_mask)
    axis = Constant <value_ints=[2]> ()
    column = Unsqueeze (mask, axis)
    kept = Mul (typed, column)
    along = Constant <value_ints=[1]> ()
    total = ReduceSum <keepdims=0> (kept, along)
    count = ReduceSum <keepdims=1> (mask, along)
    mean = Div (total, count)
    {output} = MatMul (mean, dense)
}}"""


def arrays(width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(width)
    shapes = {"table": (len(LETTERS) + 4, WIDTH), "types": (2, WIDTH), "dense": (WIDTH, width)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def output(width: int, text: str, pair: str = "") -> np.ndarray:
    """What the model of a width says of letters between spaces, in float64."""
    weights = {name: array.astype(np.float64) for name, array in arrays(width).items()}
    rows = [
        weights["table"][_id(word)] * weights["types"][kind]
        for kind, each in enumerate((text, pair))
        for word in each.split()
    ]
    return np.mean(rows, axis=0) @ weights["dense"]


def vector(text: str) -> np.ndarray:
    """The encoder's, of length 1."""
    found = output(WIDTH, text)
    return found / np.linalg.norm(found)


def bundle(folder: Path, task: str, width: int, **info: Any) -> Path:
    """A bundle written to a folder. task: embedding or sequence-classification."""
    name = "embedding" if task == "embedding" else "logits"
    proto = onnx.parser.parse_model(_GRAPH.format(width=width, output=name))
    for weight, array in arrays(width).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, weight))
    program = Program(
        onnx_ir.from_proto(proto),
        "onnx",
        (
            InputSpec("input_ids", "int64", ("batch", "length"), "token_ids", len(LETTERS) + 4),
            InputSpec("attention_mask", "int64", ("batch", "length"), "attention_mask"),
            InputSpec("token_type_ids", "int64", ("batch", "length"), "token_type_ids", 2),
        ),
        (name,),
        task,
        {"batch": (1, 64), "length": (1, 512)},
        {"tokenizer.json": _tokenizer()},
        {"max_length": LONGEST, "pad_token_id": 0, **info},
    )
    return write(folder, [Variant("default", program)], threads=1)


def _id(word: str) -> int:
    return LETTERS.index(word) + 2 if len(word) == 1 and word in LETTERS else 1


def _tokenizer() -> bytes:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *LETTERS])}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {},
            },
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        }
    ).encode()
