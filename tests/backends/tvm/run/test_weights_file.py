"""model.weights: every tensor at a multiple of 64 bytes, and no trust in what the manifest says of it."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from graphwright.backends.bundles.record import Compiled, Function, Padding, Place
from graphwright.backends.tvm.run.weights_file import read, write
from graphwright.ir.errors import BackendError, BundleError

RNG = np.random.default_rng(0)
ARRAYS = {
    "a": RNG.standard_normal((3, 5)).astype(np.float32),
    "b": RNG.integers(-128, 128, (7,)).astype(np.int8),
    "c": RNG.standard_normal((2, 3, 4)).astype(np.float16).transpose(2, 0, 1),
    "d": np.array(2.5),
    "e": np.array([True, False, True]),
}


def test_what_is_written_is_read_and_aligned(tmp_path):
    places = write(tmp_path / "w", ARRAYS)
    found = read(tmp_path / "w", places)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert found[name].__array_interface__["data"][0] % 64 == 0
    assert [place.offset % 64 for place in places] == [0] * 5
    write(tmp_path / "again", ARRAYS)
    assert (tmp_path / "w").read_bytes() == (tmp_path / "again").read_bytes()


def test_no_weights_are_a_file_too(tmp_path):
    assert read(tmp_path / "w", write(tmp_path / "w", {})) == {}


def test_writing_into_what_was_read_does_not_reach_the_file(tmp_path):
    places = write(tmp_path / "w", ARRAYS)
    before = (tmp_path / "w").read_bytes()
    read(tmp_path / "w", places)["a"][...] = 9
    assert (tmp_path / "w").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 1 << 20}, {"offset": -64}, {"offset": 8}, {"shape": (1 << 40, 1 << 40)},
        {"shape": (-1, 5)}, {"dtype": "object"}, {"dtype": "nonsense"},
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_right_is_refused(tmp_path, change):
    places = write(tmp_path / "w", ARRAYS)
    with pytest.raises(BundleError, match=r"does not hold the weight a .*build the bundle again"):
        read(tmp_path / "w", [replace(places[0], **change)])


def test_a_file_that_is_empty_or_missing_is_named(tmp_path):
    (tmp_path / "w").touch()
    for name in ("w", "nothing"):
        with pytest.raises(BundleError, match=f"{name} can't be read"):
            read(tmp_path / name, [])


def test_a_dtype_that_numpy_lacks_is_refused(tmp_path):
    with pytest.raises(BackendError, match="weight x is bfloat16"):
        write(tmp_path / "w", {"x": np.ones(3, ml_dtypes.bfloat16)})


def test_the_record_survives_json():
    import json

    compiled = Compiled(
        "x86_64",
        ("avx2",),
        (Place("w0", "float32", (3, 5), 64),),
        (Function({"batch": 1}, "run_0", ("w0",)),),
        Padding("batch", None, (("batch", None),), 3),
    )
    record = json.loads(json.dumps(compiled.to_json()))
    assert Compiled.from_json(record) == compiled
    for broken in ({"functions": []}, {"places": []}, {"padding": None}):
        with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
            Compiled.from_json({**record, **broken})
