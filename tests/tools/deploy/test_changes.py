"""What lies within its interval is noise; what lies beyond is a change, and for the worse a regression."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from graphwright.tools.deploy import changes, junit, summary
from graphwright.tools.deploy.facts import Call, Facts
from graphwright.tools.deploy.results import Result, Results


def _facts(interval=(2.0, 2.2), ms=10.0, size=10**7, drop=0.1, **more):
    call = Call(ms, (0.9 * ms, 1.1 * ms), 1.5 * ms, sum(interval) / 2 if interval else None, interval)
    return Facts(
        size, drop, "accuracy", **{"against": "ONNX Runtime", "where": "here", **more, "calls": {"1x8": call}}
    )


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (_facts((1.5, 1.9)), ["slower"]),
        (_facts((1.5, 1.99)), []),  # by less than two runs of one graph differ
        (_facts((1.5, 2.05)), []),  # intervals overlap, though the median lies outside of the old one
        (_facts((2.5, 2.6)), ["faster"]),
        (_facts((2.1, 2.9)), []),
        (_facts((1.5, 1.9), against="PyTorch eager"), []),  # another contestant; the times are alike
        (_facts(None, 15.0), ["slower"]),  # timed alone
        (_facts(None, 11.0), []),
        (_facts(None, 5.0), ["faster"]),
        (_facts(None, 15.0, where="there"), []),
        (_facts(size=10_200_000), ["larger"]),
        (_facts(size=10_050_000), []),
        (_facts(size=9_000_000), ["smaller"]),
        (_facts(drop=0.3), ["worse"]),
        (_facts(drop=0.15), []),
        (_facts(drop=-0.1), ["better"]),
        (_facts(drop=None), []),
        (_facts((2.5, 2.6), size=2 * 10**7, drop=1.0), ["larger", "worse", "faster"]),
    ],
)
def test_only_what_is_beyond_its_interval_is_a_change(new, what):
    assert [each.what for each in changes.changes(_facts(), new)] == what


def _result(name, **more):
    return Result(name, "m\x00", Path(name), more.pop("state", "built"), **more)


@pytest.fixture
def results():
    slower = changes.changes(_facts(), _facts((1.5, 1.9)))
    return [
        _result("fine", facts=_facts(), changes=()),
        _result("slow", facts=_facts((1.5, 1.9)), changes=tuple(slower)),
        _result("poor", facts=_facts(), unmet=("speedup >=9 is not met: it is 2",)),
        _result("none", state="failed", error="there is no <model>"),
    ]


@pytest.mark.parametrize(
    ("taken", "gate", "status"),
    [((0,), True, 0), ((1,), False, 0), ((1,), True, 3), ((0, 2), False, 3), ((0, 1, 2, 3), True, 1)],
)
def test_the_gate_fails_on_regressions_budgets_always_and_faults_first(results, taken, gate, status):
    assert Results(tuple(results[number] for number in taken), gate).status == status


def test_junit_has_an_error_or_failures_a_build(results):
    root = ElementTree.fromstring(junit.junit(Results(tuple(results), gate=True)))
    suite = root.find("testsuite")
    assert {name: suite.get(name) for name in ("tests", "errors", "failures")} == {
        "tests": "4",
        "errors": "1",
        "failures": "2",
    }
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases == {"fine": [], "slow": ["failure"], "poor": ["failure"], "none": ["error"]}
    assert suite.find("testcase[@name='none']/error").get("message") == "there is no <model>"


def test_the_summary_has_a_row_a_build_with_what_changed(results):
    text = summary.markdown(Results(tuple(results), gate=True))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 4
    assert "slower: 2.10 to 1.70 times ONNX Runtime at 1x8" in rows[3]
    assert "within noise" in rows[2]
    assert "- none: there is no <model>" in text
    assert "4 builds: 3 built, 1 failed. 3 not as they should be." in text
