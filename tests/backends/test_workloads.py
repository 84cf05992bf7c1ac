from dataclasses import replace

import numpy as np
import pytest
from graphwright.backends.workloads import default_names, prose, workloads
from graphwright.ir.errors import MeasureError
from graphwright.ir.program import InputSpec, Program


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


def test_the_built_in_sentences_are_many_and_of_every_length():
    lengths = [len(sentence.split()) for sentence in prose()]
    assert len(lengths) > 200
    assert min(lengths) == 4
    assert max(lengths) > 20
    assert prose() == sorted(prose())
