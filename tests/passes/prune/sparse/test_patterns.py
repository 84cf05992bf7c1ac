"""Which weights stay under each pattern, and what each way of storing them takes."""

import numpy as np
import scipy.sparse
import torch
from graphwright.passes.prune.sparse.choice import kept as kept_of
from graphwright.passes.prune.sparse.patterns import Sparsity
from graphwright.passes.prune.sparse.report import sizes
from hypothesis import given, settings
from hypothesis import strategies as st

shapes = st.tuples(st.integers(1, 4), st.integers(1, 5))


def scores_of(shape, seed, distinct=True):
    rng = np.random.default_rng(seed)
    flat = rng.permutation(shape[0] * shape[1]) if distinct else rng.integers(0, 3, shape[0] * shape[1])
    return torch.from_numpy(flat.reshape(shape).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 9), st.booleans(), st.floats(0.01, 0.99))
def test_exactly_the_highest_stay(shape, seed, distinct, sparsity):
    scores = {"a": scores_of((shape[0] * 4, shape[1] * 4), seed, distinct), "b": scores_of((8, 3), seed + 1)}
    for scope in ("matrix", "model"):
        kept = kept_of(Sparsity.read("unstructured"), scores, sparsity, scope)
        parts = [list(scores)] if scope == "model" else [[name] for name in scores]
        for names in parts:
            stay = torch.cat([scores[n][kept[n]] for n in names])
            gone = torch.cat([scores[n][~kept[n]] for n in names])
            assert len(gone) == round(sparsity * (len(stay) + len(gone)))
            assert not len(stay) or not len(gone) or stay.min() >= gone.max()


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from([(2, 4), (1, 2), (3, 8)]), st.integers(0, 9), st.booleans())
def test_n_of_m_stay_of_every_group(shape, few, seed, distinct):
    n, m = few
    scores = scores_of((shape[0], shape[1] * m), seed, distinct)
    kept = kept_of(Sparsity.read(f"{n}:{m}"), {"w": scores}, 0.5, "model")["w"]
    for row, mask in zip(scores.numpy(), kept.numpy(), strict=True):
        for start in range(0, len(row), m):
            group, stays = row[start : start + m], mask[start : start + m]
            assert stays.sum() == n
            assert group[stays].min() >= group[~stays].max()


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 9), st.floats(0.1, 0.9))
def test_blocks_stay_or_go_whole(shape, seed, sparsity):
    scores = scores_of((shape[0] * 4, shape[1]), seed)
    kept = kept_of(Sparsity.read("4x1"), {"w": scores}, sparsity, "matrix")["w"].numpy()
    blocks = kept.reshape(shape[0], 4, shape[1])
    assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()
    sums = scores.numpy().reshape(shape[0], 4, shape[1]).sum(axis=1)
    stays = blocks.all(axis=1)
    assert (~stays).sum() == round(sparsity * stays.size)
    assert not stays.any() or stays.all() or sums[stays].min() >= sums[~stays].max()


def test_sizes_are_those_of_the_real_forms():
    """Against SciPy's CSR and BSR, and by hand."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 320)).astype(np.float32)
    kept = kept_of(Sparsity(), {"w": torch.from_numpy(np.abs(weight))}, 0.9, "matrix")["w"].numpy()
    found = sizes([weight * kept], Sparsity())
    csr = scipy.sparse.csr_array(weight * kept)
    assert found["rows"] * 1e6 == csr.data.nbytes + 2 * csr.nnz + csr.indptr.nbytes  # columns in two bytes
    assert found["bitmap"] * 1e6 == csr.data.nbytes + weight.size / 8
    assert found["dense"] * 1e6 == weight.nbytes
    assert 0.1 * found["dense"] < found["deflated"] < 0.2 * found["dense"]
    four = Sparsity.read("4x1")
    kept = kept_of(four, {"w": torch.from_numpy(np.abs(weight))}, 0.75, "matrix")["w"].numpy()
    bsr = scipy.sparse.bsr_array(weight * kept, blocksize=(4, 1))
    assert (
        sizes([weight * kept], four)["rows"] * 1e6
        == bsr.data.nbytes + 2 * len(bsr.indices) + bsr.indptr.nbytes
    )
    two = Sparsity.read("2:4")
    kept = kept_of(two, {"w": torch.from_numpy(np.abs(weight))}, 0.5, "matrix")["w"].numpy()
    assert sizes([weight * kept], two)["bitmap"] * 1e6 == weight.nbytes / 2 + weight.size / 2 * 2 / 8
