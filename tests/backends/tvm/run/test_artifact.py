"""Compiled functions answer as NumPy in float64 does, at every size and from any thread."""

import threading

import numpy as np
import pytest
from graphwright.backends.measuring.workloads import workloads
from graphwright.backends.target import detect, named
from graphwright.backends.tvm.backend import Tvm
from graphwright.ir.errors import BundleError, InputError
from handmade import parsed


def near(artifact, make, feed):
    found = artifact.run(feed)["embedding"]
    expected = make.expected(make.weights(), feed)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    return found


@pytest.mark.parametrize(
    ("batch", "length", "padding"),
    [(1, 4, 0), (4, 12, 5), (1, 3, 2), (2, 7, 0), (4, 5, 1), (1, 12, 3), (5, 6, 2), (9, 2, 0), (64, 12, 11)],
)
def test_calls_of_every_size_give_their_own_answer(artifact, make, batch, length, padding):
    near(artifact, make, make.feed(batch, length, padding))


def test_padding_changes_nothing(artifact, make):
    """Against the function of that very size, to the last bit but one: the order of sums may differ."""
    exact = Tvm().build(make.encoder(), threads=1, buckets=[{"batch": 2, "length": 5}])
    feed = make.feed(2, 5, 1)
    np.testing.assert_allclose(
        artifact.run(feed)["embedding"], exact.run(feed)["embedding"], rtol=2e-6, atol=1e-6
    )


def test_results_stay_what_they_were(artifact, make):
    """They lie in memory that TVM uses again."""
    feeds = [make.feed(1, 4, seed=seed) for seed in range(20)]
    kept = [artifact.run(feed)["embedding"] for feed in feeds]
    for feed, found in zip(feeds, kept, strict=True):
        np.testing.assert_allclose(found, make.expected(make.weights(), feed), rtol=1e-5, atol=1e-5)
    kept[0][...] = 0  # they are the caller's
    near(artifact, make, feeds[1])


def test_inputs_are_only_read(artifact, make):
    feed = make.feed(1, 4)
    before = {name: array.copy() for name, array in feed.items()}
    for array in feed.values():
        array.flags.writeable = False
    near(artifact, make, feed)
    for name, array in feed.items():
        np.testing.assert_array_equal(array, before[name])


def test_arrays_need_not_lie_in_a_row(artifact, make):
    feed = make.feed(4, 12, 3)
    near(artifact, make, {name: np.asfortranarray(array) for name, array in feed.items()})
    near(artifact, make, {name: np.repeat(array, 2, axis=1)[:, ::2] for name, array in feed.items()})


def test_several_threads_get_their_own_answers(artifact, make):
    wrong = []

    def work(seed):
        for step in range(40):
            feed = make.feed(1 + step % 6, 1 + (seed + step) % 12, seed=1000 * seed + step)
            found = artifact.run(feed)["embedding"]
            if not np.allclose(found, make.expected(make.weights(), feed), atol=1e-5):
                wrong.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.pop("attention_mask"), "'attention_mask' is missing"),
        (lambda f: f.update(token_type_ids=f["input_ids"]), "no input 'token_type_ids'"),
        (lambda f: f.update(input_ids=f["input_ids"].astype(np.int32)), "its dtype is int32"),
        (lambda f: f.update(input_ids=f["input_ids"][0]), r"its shape is \[4\] and the model takes"),
        (lambda f: f.update(input_ids=np.full((1, 4), 40)), "40 is out of range; ids go from 0 to 39"),
        (lambda f: f.update(input_ids=np.full((1, 4), -1)), "-1 is out of range"),
        (lambda f: f.update(input_ids=f["input_ids"][:, :3]), "its length is 4, but that of input_ids is 3"),
    ],
)
def test_what_is_wrong_is_named_before_tvm_sees_it(artifact, make, change, sentence):
    feed = make.feed(1, 4)
    change(feed)
    with pytest.raises(InputError, match=sentence):
        artifact.run(feed)
    near(artifact, make, make.feed(1, 4))


def test_a_longer_text_is_refused_with_the_longest(make):
    short = Tvm().build(
        make.encoder(), threads=1, buckets=[{"batch": 1, "length": 4}, {"batch": 1, "length": 6}]
    )
    with pytest.raises(InputError, match="its length is 7 and the model takes at most 6"):
        short.run(make.feed(1, 7))


def test_without_a_mask_only_compiled_lengths_run():
    table = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    program = parsed(
        "x = Gather (table, ids) y = ReduceMean <keepdims=0> (x, axis)",
        "int64[batch,length] ids",
        "float[batch,6] y",
        {"table": table, "axis": np.array([1], np.int64)},
    )
    artifact = Tvm().build(program, threads=1, buckets=[{"batch": 2, "length": 3}, {"batch": 2, "length": 5}])
    ids = np.array([[1, 2, 3], [4, 5, 6], [7, 0, 1]])
    np.testing.assert_allclose(artifact.run({"ids": ids})["y"], table[ids].mean(1), atol=1e-6)
    with pytest.raises(
        InputError, match="of length 4, and padding would change what it computes; there are: length 3, l"
    ):
        artifact.run({"ids": np.zeros((2, 4), np.int64)})


def test_large_inputs_are_read_where_they_lie_and_wherever_they_lie():
    program = parsed("y = Add (x, x)", "float[batch,512] x", "float[batch,512] y")
    artifact = Tvm().build(program, threads=2, buckets=[{"batch": 64}])
    raw = np.random.default_rng(0).standard_normal(64 * 512 + 64).astype(np.float32)
    for start in range(0, 64, 3):
        x = raw[start : start + 64 * 512].reshape(64, 512)
        np.testing.assert_array_equal(artifact.run({"x": x})["y"], 2 * x)


def test_sizes_are_those_of_the_usual_workloads_unless_given(make):
    artifact = Tvm().build(make.encoder(tokenizer={}), threads=1)
    for workload in workloads(artifact.program):
        near(artifact, make, workload.feed)


def test_a_function_for_another_processor_is_built_and_does_not_run(make, tmp_path):
    other = "aarch64-neon" if detect().arch == "x86_64" else "x86-64-avx2"
    artifact = Tvm().build(make.encoder(), named(other), 2, buckets=[{"batch": 1, "length": 4}])
    with pytest.raises(BundleError, match=r"built for .* and this machine is"):
        artifact.run(make.feed(1, 4))
