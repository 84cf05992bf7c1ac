"""`optimize run --inputs FILE`: numbers arrive as they stand in the file, or are refused."""

import json
import os

import numpy as np
import pytest
from graphwright.ir.errors import InputError
from graphwright.tools.verbs import run as running

DTYPES = {"ids": "int64", "small": "int32", "x": "float32", "half": "float16", "flag": "bool"}


def arrays(tmp_path, content, name="feed.json"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return running._arrays(path, DTYPES)


def test_numbers_take_the_dtype_of_their_input(tmp_path):
    found = arrays(
        tmp_path, {"ids": [[1, 2]], "x": [1, 2.5], "flag": [True, False], "half": [0.5], "small": []}
    )
    for name, array in found.items():
        assert array.dtype.name == DTYPES[name]
    assert found["x"].tolist() == [1.0, 2.5]
    assert arrays(tmp_path, {"other": [1.5]})["other"].dtype == np.float64  # refused by name later


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"ids": [[1.7]]}, "ids takes int64 and is given 1.7"),
        ({"ids": [[1.0]]}, "ids takes int64 and is given values of float64"),
        ({"ids": [2**63]}, "ids takes int64 and is given a number beyond it"),
        ({"small": [2**31]}, "small takes int32 and is given a number beyond it"),
        ({"small": [-(2**63)]}, "small takes int32 and is given a number beyond it"),
        ({"ids": [10**30]}, "ids takes int64 and is given values of object"),
        ({"ids": ["1"]}, "ids takes int64 and is given values of str"),
        ({"ids": [None]}, "ids takes int64 and is given values of object"),
        ({"flag": [1]}, "flag takes bool and is given values of int64"),
        ({"x": [1e300]}, "x takes float32 and is given a number beyond it"),
        ({"half": [70000]}, "half takes float16 and is given a number beyond it"),
        ({"ids": [[1], [1, 2]]}, "inhomogeneous"),
        ([1], "should be an object"),
        (b"{", "Expecting"),
        (b"\xff", "decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"ids": [' + b"9" * 5000 + b"]}", "limit"),
    ],
)
def test_what_would_be_computed_with_as_something_else_is_refused(tmp_path, content, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        arrays(tmp_path, content)
    assert "feed.json does not hold arrays" in str(caught.value)


def test_npz_files_are_read_and_nothing_in_them_is_unpickled(tmp_path):
    path = tmp_path / "feed.npz"
    np.savez(path, ids=np.ones((1, 2), np.int64))
    assert running._arrays(path, DTYPES)["ids"].tolist() == [[1, 1]]
    whole = path.read_bytes()
    np.savez(path, ids=np.array([{}], object))
    for content, sentence in ((path.read_bytes(), "pickle"), (whole[:-40], "zip"), (b"", "zip")):
        with pytest.raises(InputError, match=sentence):
            arrays(tmp_path, content, "other.npz")


def test_an_archive_that_would_fill_the_memory_is_not_unpacked(tmp_path):
    path = tmp_path / "feed.npz"
    np.savez_compressed(path, ids=np.zeros(2**24, np.int64))
    assert path.stat().st_size < 1e6
    with pytest.raises(InputError, match="larger than 64 MB"):
        running._arrays(path, DTYPES)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "feed.json")
    with pytest.raises(InputError, match="not a regular file"):
        running._arrays(tmp_path / "feed.json", DTYPES)


def test_outputs_of_every_rank_and_dtype_are_shown():
    outputs = {
        "number": np.float32(1.5), "none": np.zeros((0, 4)), "wide": np.zeros((2, 0)),
        "flag": np.array([True]),        "name": np.array(["a"]), "deep": np.ones((1, 2, 3)),
    }  # fmt: skip
    lines = running.lines({name: np.asarray(array) for name, array in outputs.items()})
    assert lines[:2] == ["number: float32 []", "  [1.5]"]
    assert "  [True]" in lines
    assert "  [a]" in lines
    assert lines[-1] == "  [1, 1, 1, 1, 1, 1]"
