"""Inputs that nobody meant to write: each is taken, or refused in one sentence, and leaves nothing.

The cases are the same in every run; `benchmarks/mutations.py` tries others, and bounds their time and memory.
"""

from pathlib import Path

import pytest
from graphwright.backends.bundles.bundle import Variant, write
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.run.artifact import write_compiled
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mutation import Material, program_of

GIB = 1 << 20  # in KiB, as the system counts
OWN = Path("/proc/self")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutations")
    program = program_of(folder / "base.onnx")
    compiled = Tvm().build(program, threads=1, buckets=[{"batch": 1, "length": 4}])
    bundles = (
        write(folder / "graph", [Variant("only", program)]),
        write_compiled(folder / "compiled", compiled),
    )
    (folder / "cases").mkdir()
    return Material(folder / "cases", bundles)


def cases(number):
    fixed = settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: fixed(given(seed=st.integers(0, 2**32 - 1))(test))


def tried(material, kind, seed):
    """Anything but a GraphwrightError goes through, as does more than one line of it."""
    (OWN / "clear_refs").write_text("5")  # the peak starts anew: what other tests took is not this case's
    before = kib("VmRSS")
    material.said(kind, seed)
    assert kib("VmHWM") - before < 2 * GIB


def kib(name):
    status = dict(line.split(":") for line in (OWN / "status").read_text().splitlines())
    return int(status[name].split()[0])


@cases(400)
@example(seed=5)  # a negative size of an input
def test_onnx_files(material, seed):
    tried(material, "onnx", seed)


@cases(60)
@example(seed=33)  # an attribute without a type
@example(seed=44)  # dimensions that are no sizes
def test_onnx_files_through_passes_to_a_bundle(material, seed):
    tried(material, "exact", seed)


@cases(200)
@example(seed=4)  # an architecture's name of 5,000 letters
def test_configurations_of_directories(material, seed):
    tried(material, "config", seed)


@cases(200)
def test_indexes_and_headers_of_weights(material, seed):
    tried(material, "index", seed)


@cases(15)
@example(seed=87)  # a padding token that is no text
def test_files_beside_the_weights_of_a_sentence_encoder(material, seed):
    tried(material, "beside", seed)


@cases(300)
def test_manifests_of_bundles(material, seed):
    tried(material, "manifest", seed)


@cases(300)
def test_options(material, seed):
    tried(material, "options", seed)


@cases(150)
def test_files_of_settings(material, seed):
    tried(material, "settings", seed)


@cases(150)
@example(seed=18)  # a column of 5,000 letters
def test_files_of_rows(material, seed):
    tried(material, "data", seed)


@cases(150)
@example(seed=1112)  # an archive packed in a way that nothing unpacks
def test_files_of_arrays(material, seed):
    tried(material, "arrays", seed)
