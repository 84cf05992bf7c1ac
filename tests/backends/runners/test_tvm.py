"""Compiled functions run from C: padded, split, their padding left out, the same bits as from Python."""

import json
import shutil
from dataclasses import replace

import c_runner
import numpy as np
import pytest
from graphwright.backends.bundles.manifest import write_manifest
from graphwright.backends.runners.build import LIBRARY
from graphwright.backends.running.runner import load
from graphwright.backends.tvm.backend import Tvm
from graphwright.ir.errors import GraphwrightError
from graphwright.ir.spec import InputSpec
from handmade import parsed
from zoo import onnx_program


@pytest.fixture
def same(runner, tmp_path):
    """Checks that C and Python say the same to feeds; gives what C says."""

    def check(bundle, feeds):
        found = c_runner.answers(runner / LIBRARY, bundle, feeds, tmp_path)
        loaded = load(bundle)
        for feed, answer in zip(feeds, found, strict=True):
            if isinstance(answer, str):
                with pytest.raises(GraphwrightError):
                    loaded.run(feed)
                continue
            for name, wanted in loaded.run(feed).items():
                assert answer[name].dtype == wanted.dtype
                assert answer[name].shape == wanted.shape
                assert answer[name].tobytes() == wanted.tobytes()
        return found

    return check


@pytest.fixture(scope="module")
def encoder(make, tmp_path_factory):
    sizes = [{"batch": 1, "length": 4}, {"batch": 4, "length": 12}]
    out = tmp_path_factory.mktemp("tvm") / "encoder"
    Tvm().build(make.encoder(), threads=2, buckets=sizes).save(out)
    return out


SHAPES = [
    (1, 4, 0),
    (1, 3, 1),
    (4, 12, 0),
    (4, 12, 5),
    (9, 7, 2),
    (5, 1, 0),
    (64, 12, 3),
    (3, 12, 0),
    (2, 4, 1),
]


def test_calls_are_padded_and_split(encoder, make, same):
    found = same(encoder, [make.feed(*shape, seed=i) for i, shape in enumerate(SHAPES)])
    assert [answer["embedding"].shape for answer in found] == [(batch, 16) for batch, _, _ in SHAPES]


def test_what_does_not_fit_is_refused(encoder, make, same):
    feed = make.feed(1, 4)
    wrong = [make.feed(1, 13), {**feed, "input_ids": feed["input_ids"] + 40}, feed]
    long, ids, answer = same(encoder, wrong)
    assert long == "input_ids: its length is 13 and the model takes at most 12"
    assert "ids go from 0 to 39" in ids
    assert answer["embedding"].shape == (1, 16)


def test_without_a_mask_only_compiled_lengths_run(same, tmp_path):
    table = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    program = parsed(
        "x = Gather (table, ids) y = ReduceMean <keepdims=0> (x, axis)",
        "int64[batch,length] ids",
        "float[batch,6] y",
        {"table": table, "axis": np.array([1], np.int64)},
    )
    sizes = [{"batch": 2, "length": 3}, {"batch": 2, "length": 5}]
    Tvm().build(program, threads=1, buckets=sizes).save(tmp_path / "out")
    feeds = [
        {"ids": np.arange(rows * length).reshape(rows, length) % 8}
        for rows, length in ((3, 3), (2, 4), (1, 5))
    ]
    found = same(tmp_path / "out", feeds)
    assert "of length 4, and padding would change what it computes; there are: length 3, length 5" in found[1]


def test_places_from_the_end_are_places_from_the_start(same, tmp_path):
    program = parsed(
        "y = GatherElements <axis=1> (x, at)", "float[batch,length] x, int64[batch,1] at", "float[batch,1] y"
    )
    places = InputSpec("at", "int64", ("batch", 1), follows="length", indexes=True)
    x, _ = program.inputs
    artifact = Tvm().build(
        replace(program, inputs=(x, places)), threads=1, buckets=[{"batch": 4, "length": 5}]
    )
    artifact.save(tmp_path / "out")
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    feeds = [{"x": x, "at": np.array([[0], [-1], [4], [-5]])}, {"x": x, "at": np.array([[5], [0], [0], [0]])}]
    found = same(tmp_path / "out", feeds)
    assert found[0]["y"].ravel().tolist() == [0.0, 9.0, 14.0, 15.0]
    assert "5 is out of range; at length 5 indices go from 0 to 4" in found[1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"arch": "sparc"}, "was built for sparc"),
        ({"needs": ["avx9000"]}, "was built for a processor with avx9000"),
        ({"functions": []}, "it has no compiled function"),
        (
            {"padding": {"batch": "rows", "length": None, "axes": [[None, None]], "token": 0}},
            "what no input has",
        ),
        (
            {"padding": {"batch": None, "length": None, "axes": [], "token": 0}},
            "outputs listed are not those",
        ),
    ],
)
def test_a_manifest_that_lies_is_refused(encoder, runner, tmp_path, change, sentence):
    copy = shutil.copytree(encoder, tmp_path / "copy")
    record = json.loads((copy / "manifest.json").read_text())
    record["compiled"] |= change
    write_manifest(copy, record)
    with pytest.raises(GraphwrightError):
        load(copy)
    with pytest.raises(c_runner.RunnerError) as caught:
        c_runner.Library(runner / LIBRARY).load(copy)
    assert sentence in str(caught.value)


@pytest.mark.slow
def test_a_transformer_leaves_its_padding_out(same, tmp_path):
    """Functions that take the kept tokens and where sequences begin, at larger and at smaller calls."""
    program, sizes = onnx_program("bert", "eager"), [{"batch": 1, "length": 6}, {"batch": 2, "length": 9}]
    artifact = Tvm().build(program, threads=2, buckets=sizes)
    assert all(function.mask for function in artifact.compiled.functions)
    artifact.save(tmp_path / "out")
    feeds = []
    for seed, (rows, length) in enumerate(((1, 6), (2, 9), (5, 7), (3, 1))):
        draw = np.random.default_rng(seed)
        mask = np.arange(length)[None] < draw.integers(1, length + 1, (rows, 1))
        by_role = {"token_ids": draw.integers(5, 20, mask.shape), "attention_mask": mask}
        feeds.append(
            {
                spec.name: np.asarray(by_role.get(spec.role, np.zeros(mask.shape)), spec.dtype)
                for spec in program.inputs
            }
        )
    same(tmp_path / "out", feeds)
