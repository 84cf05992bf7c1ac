"""The language of goals: what is read is what was written, and what no bundle can keep is refused."""

import pytest
from graphwright.ir.errors import ConfigError
from graphwright.tools.search.goal import METRICS, Goal, Limit, Measured, goal
from hypothesis import given, settings
from hypothesis import strategies as st

NUMBERS = st.floats(1e-3, 1e6, allow_nan=False)
WORKLOADS = st.sampled_from([None, "1x128", "8x16", "mixed:32"])


@st.composite
def measured(draw):
    name = draw(st.sampled_from(sorted(METRICS)))
    return Measured(name, draw(WORKLOADS) if METRICS[name].of_call else None)


@settings(deadline=None)
@given(st.lists(st.tuples(measured(), NUMBERS), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
def test_a_goal_reads_back_as_it_is_printed(pairs):
    limits = tuple(Limit(of, number) for of, number in pairs)
    assert goal(str(Goal(limits, ())), "size") == Goal(limits, (Measured("size"),))


@settings(deadline=None)
@given(NUMBERS, st.sampled_from(sorted(METRICS)), st.data())
def test_a_unit_is_how_many_of_the_first(number, name, data):
    metric = METRICS[name]
    unit = data.draw(st.sampled_from(sorted(metric.units)))
    (limit,) = goal(f" {name} {metric.bound} {number!r} {unit} ", "size").limits
    assert limit.most == number * metric.units[unit]
    assert goal(f"{name}{metric.bound}{number!r}{unit.lower()}", "size").limits == (limit,)


def test_the_goal_of_the_manual():
    found = goal("latency<=5ms@1x128, drop<=1.0, size<=20MB", "latency,size").at(("8x8",))
    assert found.limits == (
        Limit(Measured("latency", "1x128"), 5.0),
        Limit(Measured("drop"), 1.0),
        Limit(Measured("size"), 20.0),
    )
    assert [one.key for one in found.minimise] == ["latency@1x128", "size"]
    assert found.workloads == ("1x128",)
    values = {"latency@1x128": 6.0, "drop": 0.5, "size": 30.0}
    assert found.distance(values) == pytest.approx(0.2 + 0.5)
    assert found.distance({**values, "latency@1x128": 5.0, "size": 20.0}) == 0
    assert found.objectives(values) == (6.0, 30.0)


def test_what_names_no_workload_is_about_the_first_call():
    found = goal("speedup>=2, latency<=3").at(("8x8", "1x4"))
    assert [limit.of.key for limit in found.limits] == ["speedup@8x8", "latency@8x8"]
    assert [one.key for one in found.minimise] == ["latency@8x8"]
    assert found.distance({"speedup@8x8": 1.0, "latency@8x8": 1.0}) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "minimise", "sentence"),
    [
        ("latncy<=5ms", None, "goal: there is no metric 'latncy'; did you mean 'latency'"),
        ("size<=20MB", "latency,sise", "minimise: there is no metric 'sise'; did you mean 'size'"),
        ("latency>=5ms", None, "latency is better the smaller it is, so limit it by latency<=5ms"),
        ("speedup<=2", None, "speedup is better the larger it is, so limit it by speedup>=2"),
        ("latency<5ms", None, "limit it by latency<=5ms"),
        ("size<=20MB,size<=30MB", None, "goal contradicts itself: size stands in it twice"),
        ("size<=0MB", None, "size<=0MB contradicts itself: no model has such a size"),
        ("latency<=-3", None, "no model has such a latency"),
        ("size<=20MiB", None, "size is no number of 'MiB'; did you mean 'MB'"),
        ("size<=20MB@1x8", None, "size is the same for every call, so leave out @1x8"),
        ("latency<=5ms@8by8", None, "goal: '8by8' is no shape"),
        ("size", None, "'size' is no limit"),
        ("size<=1.2.3", None, "'1.2.3' is no number"),
        ("size<=1,", None, "'' is no limit"),
        ("", None, "nothing is to become small"),
        ("speedup>=2", None, "nothing is to become small"),
        ("size<=1", "speedup", "speedup is better the larger it is"),
        ("size<=1", "size,size", "minimise contradicts itself: size stands in it twice"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(text, minimise, sentence):
    with pytest.raises(ConfigError) as caught:
        goal(text, minimise)
    assert sentence in str(caught.value)


def test_two_limits_for_one_call_are_found_once_its_workload_is_known():
    found = goal("latency<=5ms, latency<=3ms@1x8")
    with pytest.raises(ConfigError, match="latency@1x8 stands in it twice"):
        found.at(("1x8",))
    assert len(found.at(("2x8",)).limits) == 2
