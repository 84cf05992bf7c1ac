from dataclasses import replace

import numpy as np
import pytest
from graphwright.backends.measuring.workloads import default_names, prose, workloads
from graphwright.ir.errors import MeasureError
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec


def images(batch="batch"):
    pixels = InputSpec("pixel_values", "float32", (batch, 3, 8, 8), "pixel_values")
    return Program(None, "onnx", (pixels,), ("logits",), symbols={"batch": (1, 64)})


def feed(program, name, **options):
    (workload,) = workloads(program, [name], **options)
    assert workload.name == name
    return workload.feed


def test_a_shape_is_ids_in_range_without_padding(make):
    found = feed(make.encoder(), "4x9")
    assert found["input_ids"].shape == found["attention_mask"].shape == (4, 9)
    assert found["attention_mask"].all()
    assert 0 <= found["input_ids"].min() <= found["input_ids"].max() < 40
    assert len(np.unique(found["input_ids"])) > 10


def test_sentences_are_unequal_and_the_longest_is_not_padded(make):
    texts = ["a b", "c d e f g", "h", "i j k l m n o p q r s"]
    found = feed(make.encoder(), "mixed:4", texts=texts)
    assert sorted(found["attention_mask"].sum(1)) == [1, 2, 5, 8]  # 8: what the model takes
    assert found["input_ids"].shape == (4, 8)


def test_sentences_without_a_tokenizer_are_as_unequal(make):
    found = feed(make.encoder(tokenizer={}), "mixed:3", texts=["a b", "c d e f g", "h"])
    assert sorted(found["attention_mask"].sum(1)) == [3, 4, 7]


def test_equal_seeds_give_equal_workloads_and_others_do_not(make):
    a, b, c = (feed(make.encoder(), "mixed:8", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a["input_ids"], b["input_ids"])
    assert a["input_ids"].shape != c["input_ids"].shape or (a["input_ids"] != c["input_ids"]).any()


def test_more_sentences_than_there_are_texts(make):
    assert feed(make.encoder(), "mixed:6", texts=["a", "b c"])["input_ids"].shape[0] == 6


def test_images_are_named_by_their_batch():
    assert feed(images(), "4")["pixel_values"].shape == (4, 3, 8, 8)
    assert default_names(images()) == ("1", "8")
    with pytest.raises(MeasureError, match="the workload 4x16 has a length and the model has none; write 4"):
        workloads(images(), ["4x16"])


def test_hidden_states_are_named_by_their_length_and_their_lengths_are_full():
    inputs = (
        InputSpec("lengths", "int64", ("batch",), low=1, follows="frames", reach=1),
        InputSpec("features", "float32", ("batch", "frames", 16), "hidden"),
    )
    program = Program(None, "onnx", inputs, ("y",), symbols={"batch": (1, 64), "frames": (1, 100)})
    assert default_names(program) == ("1x100", "8x100", "1x16")
    found = feed(program, "4x20")
    assert found["features"].shape == (4, 20, 16)
    assert found["lengths"].tolist() == [20] * 4
    with pytest.raises(MeasureError, match="the workload 1x101 needs frames = 101 and the model takes at mo"):
        workloads(program, ["1x101"])


def test_sound_is_as_long_as_its_convolutions_make_frames_of():
    sound = InputSpec("input_values", "float32", ("batch", "samples"))
    program = Program(None, "onnx", (sound,), ("y",), symbols={"batch": (1, 64), "samples": (400, 2**31 - 1)})
    assert default_names(program) == ("1x51200", "8x51200", "1x6400")
    assert feed(program, "1x6400")["input_values"].shape == (1, 6400)


def test_images_of_free_sizes_are_of_a_usual_one():
    pixels = InputSpec("pixel_values", "float32", ("batch", 3, "height", "width"), "pixel_values")
    symbols = {"batch": (1, 64), "height": (14, 2**31 - 1), "width": (14, 112)}
    program = Program(None, "onnx", (pixels,), ("y",), symbols=symbols)
    assert feed(program, "2")["pixel_values"].shape == (2, 3, 224, 112)


def test_a_mask_that_is_true_for_padding_is_made_that_way_round(make):
    program = make.encoder()
    inputs = [replace(s, hidden=1) if s.role == "attention_mask" else s for s in program.inputs]
    texts = ["a b", "c d e f g", "h"]
    for tokenizer in ({}, program.tokenizer):
        around = replace(program, inputs=tuple(inputs), tokenizer=tokenizer)
        straight = feed(replace(program, tokenizer=tokenizer), "mixed:3", texts=texts)["attention_mask"]
        np.testing.assert_array_equal(feed(around, "mixed:3", texts=texts)["attention_mask"], 1 - straight)
        assert not feed(around, "2x5")["attention_mask"].any()


def test_a_tokenizer_serves_where_texts_make_every_input(make):
    program = make.encoder()
    places = InputSpec("word_positions", "int64", ("batch", "words"), follows="length")
    other = replace(program, inputs=(*program.inputs, places), symbols={**program.symbols, "words": (1, 9)})
    found = feed(other, "mixed:3", texts=["a b", "c d e f g", "h"])
    assert found["word_positions"].max() < found["input_ids"].shape[1]


@pytest.mark.parametrize("name", ["", "x", "0x4", "4x", "-1x4", "mixed", "mixed:0", "8x128x2", "many"])
def test_a_name_that_says_no_shape_is_refused(make, name):
    with pytest.raises(MeasureError, match="is no shape; write batch x length"):
        workloads(make.encoder(), [name])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("1x13", "1x13 needs length = 13 and the model takes at most 12"),
        ("65x4", "65x4 needs batch = 65 and the model takes at most 64"),
        ("mixed:65", "mixed:65 is a batch of 65 and the model takes 1 to 64"),
    ],
)
def test_what_the_model_does_not_take_is_refused(make, name, sentence):
    with pytest.raises(MeasureError, match=sentence):
        workloads(make.encoder(), [name])


def test_unequal_sentences_need_a_mask(make):
    program = make.encoder()
    with pytest.raises(MeasureError, match="takes no attention mask"):
        workloads(replace(program, inputs=program.inputs[:1]), ["mixed:4"])


def test_default_workloads_fit_the_model(make):
    program = make.encoder()
    assert default_names(program) == ("1x12", "8x12", "mixed:32")
    longer = replace(program, symbols={"batch": (1, 64), "length": (1, 512)})
    assert default_names(longer) == ("1x128", "8x128", "1x16", "mixed:32")
    fixed = tuple(replace(spec, shape=(2, 10)) for spec in program.inputs)
    assert default_names(replace(program, inputs=fixed)) == ("2x10", "mixed:2")
    for chosen in (program, longer, replace(program, inputs=fixed)):
        assert len(workloads(chosen)) == len(default_names(chosen))


def test_images_of_a_fixed_or_bounded_batch_are_measured_at_what_they_take():
    fixed, bounded = images(3), replace(images(), symbols={"batch": (1, 4)})
    assert default_names(fixed) == ("3",)
    assert default_names(bounded) == ("1", "4")
    assert [workload.feed["pixel_values"].shape[0] for workload in workloads(fixed)] == [3]


def test_the_built_in_sentences_are_many_and_of_every_length():
    lengths = [len(sentence.split()) for sentence in prose()]
    assert len(lengths) > 200
    assert min(lengths) == 4
    assert max(lengths) > 20
    assert prose() == sorted(prose())
