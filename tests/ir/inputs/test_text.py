"""Texts as arrays, by a tokenizer of single letters."""

import json

import numpy as np
import pytest
from graphwright.ir.errors import BundleError, InputError
from graphwright.ir.inputs.text import TextEncoder
from graphwright.ir.spec import InputSpec

SIZES = ("batch", "length")
IDS = InputSpec("input_ids", "int64", SIZES, "token_ids", 40)
INPUTS = (IDS, InputSpec("attention_mask", "int64", SIZES, "attention_mask"))
CONTENT = json.dumps(
    {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {w: i for i, w in enumerate(["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"])},
            "unk_token": "[UNK]",
        },
    }
).encode()


@pytest.fixture
def encode():
    types = InputSpec("token_type_ids", "int32", SIZES, "token_type_ids", 2)
    positions = InputSpec("position_ids", "int64", SIZES, "position_ids", 12)
    symbols = {"batch": (1, 64), "length": (1, 12)}
    return TextEncoder(CONTENT, (*INPUTS, types, positions), {"max_length": 8, "pad_token_id": 7}, symbols)


def test_pads_to_the_longest_with_the_models_own_padding(encode):
    feed = encode(["a b c", "z"])
    np.testing.assert_array_equal(feed["input_ids"], [[2, 3, 4], [27, 7, 7]])
    np.testing.assert_array_equal(feed["attention_mask"], [[1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(feed["position_ids"], [[0, 1, 2], [0, 0, 0]])
    assert feed["token_type_ids"].dtype == np.int32


def test_truncates_to_what_the_model_takes_not_to_what_the_file_says(encode):
    assert encode(["a " * 30])["input_ids"].shape == (1, 8)


def test_pairs_are_one_row_with_two_types(encode):
    feed = encode(["a b"], ["c"])
    np.testing.assert_array_equal(feed["token_type_ids"], [[0, 0, 1]])


def test_words_keep_track_of_their_tokens(encode):
    feed, words = encode.words([["a", "b"], ["c"]])
    assert words == [[0, 1], [0]]
    assert feed["input_ids"].shape == (2, 2)
    assert encode.token_id("a") == 2
    assert encode.token_id("nowhere") is None


def test_a_fixed_length_is_filled():
    ids = InputSpec("input_ids", "int64", ("batch", 6), "token_ids", 40)
    encode = TextEncoder(CONTENT, (ids,), {}, {})
    assert encode(["a b", "c " * 9])["input_ids"].shape == (2, 6)


@pytest.mark.parametrize(
    ("texts", "sentence"), [("one", "list of texts"), ([], "one or more"), ([3], "strings")]
)
def test_what_is_no_list_of_texts_is_refused(encode, texts, sentence):
    with pytest.raises(InputError, match=sentence):
        encode(texts)


def test_an_input_that_text_does_not_give_is_named():
    pixels = InputSpec("pixel_values", "float32", ("batch", 3), "pixel_values")
    encode = TextEncoder(CONTENT, (*INPUTS, pixels), {}, {})
    with pytest.raises(InputError, match=r"'pixel_values' \(pixel_values\) is not made from text"):
        encode(["a"])


def test_a_model_without_token_ids_has_no_use_for_texts():
    with pytest.raises(BundleError, match="takes no token ids"):
        TextEncoder(CONTENT, (), {}, {})


def test_a_damaged_tokenizer_is_named():
    with pytest.raises(BundleError, match=r"tokenizer\.json can't be read"):
        TextEncoder(b"{", INPUTS, {}, {})


def test_a_model_without_a_limit_gets_every_token():
    encode = TextEncoder(CONTENT, INPUTS, {}, {})
    assert encode(["a " * 30])["input_ids"].shape == (1, 30)
