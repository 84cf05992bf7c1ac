"""Bundles of a table of letters, texts of them, and an index of each kind."""

import lettered
import numpy as np
import pytest
from graphwright import Index
from graphwright.tools.retrieval.record import KINDS


@pytest.fixture(scope="session")
def weights():
    return lettered.table()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, weights):
    return lettered.bundle(tmp_path_factory.mktemp("bundles") / "letters", weights)


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    return lettered.bundle(tmp_path_factory.mktemp("bundles") / "other", lettered.table(seed=1))


@pytest.fixture(scope="session")
def texts():
    """400 of 1 to 6 letters; some of them twice, and some the same letters in another order."""
    draw = np.random.default_rng(0)
    found = [" ".join(draw.choice(list(lettered.LETTERS[:12]), draw.integers(1, 7))) for _ in range(300)]
    return [*found, *found[:50], *(" ".join(reversed(text.split())) for text in found[50:100])]


@pytest.fixture(scope="session")
def indexes(bundle, texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexes")
    return {kind: Index.build(bundle, texts, folder / kind, kind) for kind in KINDS}
