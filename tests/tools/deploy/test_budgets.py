"""Budgets are read in their units, and judged by what was measured."""

import pytest
from graphwright.ir.errors import ConfigError
from graphwright.tools.deploy import budgets
from graphwright.tools.deploy.facts import Call, Facts

CALLS = {
    "1x8": Call(2.0, (1.9, 2.1), 3.0, 2.5, (2.4, 2.6)),
    "8x128": Call(30.0, (29.0, 31.0), 41.0, 1.5, (1.4, 1.6)),
}
FACTS = Facts(20_000_000, 0.25, "accuracy", "ONNX Runtime", "here", CALLS)


@pytest.mark.parametrize(
    ("key", "limit", "value"),
    [
        ("size", "<=30MB", 30e6),
        ("size", "<= 1.5 GiB", 1.5 * 2**30),
        ("p95@8x128", "<=40ms", 40),
        ("p50", "<=1s", 1000),
        ("p50", "<=250us", 0.25),
        ("speedup", ">=2", 2),
        ("speedup", ">=2x", 2),
        ("drop", "<=.5", 0.5),
    ],
)
def test_limits_have_their_units(key, limit, value):
    assert budgets.read(key, limit).limit == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("key", "limit", "sentence"),
    [
        ("spedup", ">=2", "unknown budget 'spedup'; did you mean 'speedup'?"),
        ("speedup", "2", "'2' is no limit; write >= or <= and a number"),
        ("speedup", ">=two", "'>=two' is no limit"),
        ("size", "<=30", "has no unit that size is counted in: KB, MB"),
        ("p95", "<=40MB", "has no unit that p95 is counted in: ms"),
        ("p95@8*128", "<=40ms", "'8*128' is no shape"),
        ("size@1x8", "<=1MB", "size is one of a whole build"),
        ("p50", "<=inf", "is no limit"),
    ],
)
def test_what_cannot_be_read_is_refused(key, limit, sentence):
    with pytest.raises(ConfigError) as caught:
        budgets.read(key, limit)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("key", "limit", "sentence"),
    [
        ("speedup", ">=1.5", ""),
        ("speedup", ">=1.6", "speedup >=1.6 is not met: it is 1.5 at 8x128"),
        ("speedup@1x8", ">=2.5", ""),
        ("p95@8x128", "<=40ms", "p95@8x128 <=40ms is not met: it is 41 ms at 8x128"),
        ("p95", "<=41ms", ""),
        ("p50", "<=29ms", "p50 <=29ms is not met: it is 30 ms at 8x128"),
        ("size", "<=20MB", ""),
        ("size", "<=19.9MB", "size <=19.9MB is not met: it is 2e+07 bytes"),
        ("drop", "<=0.25", ""),
        ("drop", "<=0.2", "drop <=0.2 is not met: it is 0.25 points"),
        ("p95@2x2", "<=1s", "p95@2x2 <=1s can't be judged: p95 was not measured at 2x2"),
    ],
)
def test_the_worst_workload_decides(key, limit, sentence):
    assert budgets.read(key, limit).unmet(FACTS) == sentence


def test_what_was_not_measured_is_not_met():
    untimed = Facts(1, None)
    for key, limit in (("speedup", ">=1"), ("drop", "<=9"), ("p95", "<=9s")):
        assert "can't be judged" in budgets.read(key, limit).unmet(untimed)
