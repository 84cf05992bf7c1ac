"""Programs compiled once for all tests of a file, and an encoder that shows when padding was believed in."""

import pytest
from graphwright.backends.tvm.backend import Tvm

SIZES = ({"batch": 1, "length": 4}, {"batch": 4, "length": 12})


@pytest.fixture(scope="session")
def artifact(make):
    """The tiny encoder at 1x4 and 4x12."""
    return Tvm().build(make.encoder(), threads=2, buckets=SIZES)
