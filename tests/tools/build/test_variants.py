"""Which graph serves which workload."""

import pytest
from graphwright.passes.manager.contract import Exact, Ratio, Step
from graphwright.tools.build.variants import choose, decisions, title


def step(status, **ratios):
    found = {name: Ratio(value, value, value) for name, value in ratios.items()}
    return Step("p", Exact(), status, ratios=found)


def test_a_pass_is_left_out_where_it_loses_and_nowhere_else():
    steps = [
        step("applied"),
        step("applied", short=0.5, long=1.5, mixed=1.0),
        step("slower", short=0.5, long=0.9, mixed=0.9),
        step("applied", short=1.2, long=0.99, mixed=0.9),
    ]
    assert decisions(steps, ["short", "long", "mixed"]) == {
        frozenset(): ["long"],
        frozenset({1}): ["short"],
        frozenset({3}): ["mixed"],
    }
    assert decisions(
        steps, ["long", "mixed"], pays=lambda number, workload: (number, workload) != (1, "long")
    ) == {
        frozenset(): [],
        frozenset({1}): ["long"],
        frozenset({3}): ["mixed"],
    }
    assert title(["1x16"], {"main"}) == "for-1x16"
    assert title(["mixed:32", "8x128", "1x8"], {"main"}) == "for-mixed-32-and-2-more"
    assert title(["1x16"], {"main", "for-1x16"}) == "for-1x16-2"


def faster(times):
    def ratio(workload, a, b):
        value = times[b][workload] / times[a][workload]
        return Ratio(value, value * 0.99, value * 1.01)

    return ratio


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        # Within noise the default stays.
        ({"main": (10, 10), "x": (9.9, 10)}, ("main", "main")),
        # Each takes where it wins.
        ({"main": (10, 10), "x": (5, 20)}, ("x", "main")),
        # Of two that win by like amounts, the one already in the bundle.
        ({"main": (10, 10), "x": (5, 5.05), "y": (9, 5.0)}, ("x", "x")),
        # Of those in the bundle anyway, the fastest even within noise.
        ({"main": (10, 10, 9.9), "x": (5, 9.9, 10)}, ("x", "x", "main")),
        # A default that wins nowhere is chosen nowhere.
        ({"main": (10, 10), "x": (5, 5)}, ("x", "x")),
        # The fastest wins, whatever its place in the list.
        ({"main": (10, 10), "x": (8, 10), "y": (4, 10)}, ("y", "main")),
    ],
)
def test_each_workload_gets_its_fastest_graph_and_the_bundle_few(times, expected):
    table = {name: dict(zip("abc", row, strict=False)) for name, row in times.items()}
    assert tuple(choose("abc"[: len(expected)], list(times), faster(table)).values()) == expected


def test_the_graph_made_for_a_workload_stays_within_noise_and_gives_way_beyond():
    times = {"main": {"a": 10, "b": 5}, "x": {"a": 10.1, "b": 10}}
    assert choose("ab", list(times), faster(times), {"a": "x", "b": "x"}) == {"a": "main", "b": "main"}
    times = {"main": {"a": 10, "b": 10}, "x": {"a": 10.1, "b": 10.1}}
    assert choose("ab", list(times), faster(times), {"a": "x", "b": "x"}) == {"a": "x", "b": "x"}
