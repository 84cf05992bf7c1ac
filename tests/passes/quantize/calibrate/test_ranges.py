"""Range estimators against the formulas of their papers, in float64 over all the numbers at once."""

import itertools

import numpy as np
import pytest
from graphwright.passes.quantize.calibrate.histogram import Histogram
from graphwright.passes.quantize.calibrate.ranges import KINDS, estimator
from hypothesis import given, settings
from hypothesis import strategies as st

RNG = np.random.default_rng(0)
BELL = RNG.standard_normal(40_000).astype(np.float32)
TAILED = np.concatenate([BELL, np.float32([38, 41, -25])])
ONE_SIDED = BELL / (1 + np.exp(-1.702 * BELL))  # GELU
SAMPLES = {"bell": BELL, "tailed": TAILED, "one-sided": ONE_SIDED, "negative": -np.abs(BELL) - 1}


def found(kind, values, parts=1, **options):
    one = estimator(kind, **options)
    for part in np.array_split(values, parts):
        one.update(part)
    return one.range()


def squared_error(values, low, high, symmetric=False, levels=256):
    """Of the affine mapping written out: Jacob et al. 2018, equation 1, zero point an integer."""
    values = values.astype(np.float64)
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        scale, zero = max(-low, high) / (levels // 2 - 1), levels // 2
    else:
        scale = (high - low) / (levels - 1)
        zero = round(-low / scale)
    steps = np.clip(np.rint(values / scale) + zero, 0, levels - 1)
    return ((scale * (steps - zero) - values) ** 2).mean()


@pytest.mark.parametrize("sample", SAMPLES)
def test_min_max_is_the_extremes(sample):
    values = SAMPLES[sample]
    assert found("min-max", values, 7) == (values.min(), values.max())


def test_moving_average_is_the_recurrence():
    parts = np.array_split(TAILED, 9)
    low, high = parts[0].min(), parts[0].max()
    for part in parts[1:]:
        low, high = 0.9 * low + 0.1 * part.min(), 0.9 * high + 0.1 * part.max()
    np.testing.assert_allclose(found("moving-average", TAILED, 9), (low, high), rtol=1e-6)


@pytest.mark.parametrize("share", [0.9, 0.999, 1.0])
@pytest.mark.parametrize("sample", SAMPLES)
def test_percentile_is_the_quantile(sample, share):
    values = SAMPLES[sample].astype(np.float64)
    width = 2 * 2 ** np.ceil(np.log2(np.abs(values).max())) / 2**14
    low, high = found("percentile", SAMPLES[sample], 5, share=share)
    tail = (1 - share) / 2
    expected = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    np.testing.assert_allclose((low, high), expected, rtol=0, atol=width)
    assert values.min() <= low
    assert high <= values.max()
    low, high = found("percentile", SAMPLES[sample], 5, share=share, symmetric=True)
    expected = np.quantile(np.abs(values), share, method="inverted_cdf")
    assert max(-low, high) == pytest.approx(expected, abs=2 * width)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("sample", SAMPLES)
def test_mse_is_near_the_best_of_a_grid(sample, bits, symmetric):
    values = SAMPLES[sample][-5000:]
    low, high = found("mse", values, 5, bits=bits, symmetric=symmetric)
    shares = 0.9 ** np.arange(25)
    if symmetric:
        largest = np.abs(values).max()
        grid = [(-largest * s, largest * s) for s in shares]
    else:
        ends = min(values.min(), 0), max(values.max(), 0)
        grid = [(ends[0] * a, ends[1] * b) for a, b in itertools.product(shares, shares)]
        grid = [(a, b) for a, b in dict.fromkeys(grid) if a < b]
    best = min(squared_error(values, *ends, symmetric, 2**bits) for ends in grid)
    assert squared_error(values, low, high, symmetric, 2**bits) <= 1.05 * best


def divergence(values, end):
    """Migacz 2017, slides 28 to 31, on one side: 128 levels, 2048 bins over [0, max |x|]."""
    counts, edges = np.histogram(np.abs(values), 2048, (0, np.abs(values).max()))
    kept = int(np.searchsorted(edges, end))
    before = counts[:kept].astype(np.float64)
    before[-1] += counts[kept:].sum()
    after = np.zeros(kept)
    for group in np.array_split(np.arange(kept), 128):
        some = group[counts[group] > 0]
        if len(some):
            after[some] = counts[group].sum() / len(some)
    after[(before > 0) & (after == 0)] = 1e-4  # the last bin may have clipped numbers alone
    before, after = before / before.sum(), after / after.sum()
    some = before > 0
    return (before[some] * np.log(before[some] / after[some])).sum()


def test_entropy_cuts_where_the_paper_does():
    """On a Laplace distribution with outliers, as the paper's activations have them."""
    values = np.concatenate([RNG.laplace(size=50_000), [60.0, -55.0]]).astype(np.float32)
    low, high = found("entropy", values, 3, symmetric=True)
    assert low == -high
    candidates = [np.abs(values).max() * i / 2048 for i in range(128, 2049, 16)]
    losses = [divergence(values, end) for end in candidates]
    best = candidates[int(np.argmin(losses))]
    assert 0.6 * best <= high <= 1.4 * best
    assert divergence(values, high) < 0.5 * divergence(values, np.abs(values).max())


@pytest.mark.parametrize("symmetric", [False, True])
def test_outliers_are_clipped_by_those_that_clip(symmetric):
    for kind, most in {"percentile": 5, "entropy": 8}.items():
        share = 0.999 if kind == "percentile" else 0.9999
        assert found(kind, TAILED, share=share, symmetric=symmetric)[1] < most
    # At 8 bits three numbers in 40,000 are worth their steps: squared, a clipped 41 weighs more.
    assert found("mse", TAILED, bits=4, symmetric=symmetric)[1] < found("mse", TAILED, symmetric=symmetric)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_for_each_channel_is_that_of_the_channel_alone(kind):
    values = np.stack([BELL[:4000], 5 * BELL[4000:8000] + 3, np.zeros(4000), ONE_SIDED[:4000]], axis=-1)
    low, high = found(kind, values.reshape(40, 100, 4), 3, channels=4)
    assert low.shape == high.shape == (4,)
    for number in range(4):
        alone = found(kind, values[:, [number, number]].reshape(40, 100, 2), 3, channels=2)
        assert (low[number], high[number]) == (alone[0][1], alone[1][1])
    assert abs(low[2]) == abs(high[2]) == 0


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("kind", [*KINDS])
def test_constants_have_a_range_that_holds_them(kind, symmetric):
    for constant in (0.0, 3.0, -2.5):
        low, high = found(kind, np.full(500, constant, np.float32), symmetric=symmetric)
        assert min(low, 0) <= constant * 0.999 if constant < 0 else max(high, 0) >= constant * 0.999


@pytest.mark.parametrize("kind", KINDS)
def test_no_numbers_have_no_range(kind):
    one = estimator(kind)
    one.update(np.zeros((0, 4), np.float32))
    with pytest.raises(ValueError, match="no numbers"):
        one.range()


@given(
    exponents=st.lists(st.integers(-40, 40), min_size=1, max_size=6),
    cuts=st.integers(1, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_the_histogram_does_not_depend_on_parts_and_order(exponents, cuts, seed):
    rng = np.random.default_rng(seed)
    pieces = [rng.standard_normal((30, 2)) * 2.0**e for e in exponents]
    values = np.concatenate([*pieces, np.zeros((3, 2)), [[2.0**e, -(2.0**e)] for e in exponents]])
    whole, streamed = Histogram(2, bins=64), Histogram(2, bins=64)
    whole.add(values)
    for part in np.array_split(rng.permutation(values), cuts):
        streamed.add(part)
    assert (whole.counts == streamed.counts).all()
    assert (whole.exponents == streamed.exponents).all()
    assert (whole.counts.sum(axis=1) == len(values)).all()
    for channel in range(2):
        bins = whole.occupied(channel)
        # Every number is within half a bin of the centre that counts it.
        nearest = np.abs(values[:, channel][:, None] - bins.centres[None]).min(axis=1)
        assert (nearest <= bins.width / 2).all()


@pytest.mark.parametrize("kind", ["percentile", "entropy", "mse"])
def test_memory_does_not_grow(kind):
    one = estimator(kind)
    size = one.histogram.counts.nbytes
    for exponent in range(-20, 20):
        one.update(BELL[:5000] * 2.0**exponent)
    assert one.histogram.counts.nbytes == size <= 1 << 18
    held = [value.nbytes for value in vars(one).values() if isinstance(value, np.ndarray)]
    assert sum(held) < 100
