"""Budgets as people write them, what a search of nothing says, and the folder that it has for itself."""

import pytest
from graphwright.ir.errors import ConfigError
from graphwright.tools.search.explore import Limits
from graphwright.tools.search.front import Front
from graphwright.tools.search.goal import goal
from graphwright.tools.search.order import Order, Searched
from graphwright.tools.search.place import check, own
from graphwright.tools.search.tried import Tried


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("0.5h", 1800)]
)
def test_budgets_are_times(text, seconds):
    assert Order("size<=1", budget=text).limits() == Limits(seconds, None)


def test_an_hour_is_the_budget_where_nothing_else_ends_a_search():
    assert Order("size<=1").limits() == Limits(3600.0, None)
    assert Order("size<=1", trials=3).limits() == Limits(None, 3)


@pytest.mark.parametrize("text", ["", "2", "h", "two hours", "0h", "2h 1d"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ConfigError, match="is no time: write one as 2h, 90m or 1h30m"):
        Order("size<=1", budget=text).limits()


def test_a_budget_is_of_all_trials_those_of_earlier_runs_too():
    known = [Tried(0, "complete", {}, seconds=40.0), Tried(1, "refused", {}, seconds=19.0)]
    assert Limits(60.0).left(known)
    assert not Limits(59.0).left(known)
    assert Limits(None, 3).left([*known, Tried(2, "running", {})])
    assert not Limits(None, 2).left(known)


def test_where_nothing_could_be_measured_there_is_no_nearest():
    found = Searched(None, goal("size<=1"), Front((), {}), [Tried(0, "refused", {})], {})
    assert found.status == 3
    assert found.failures == ["nothing meets the goal: none of 1 trials could be made and measured"]


def test_one_process_has_a_folder(tmp_path):
    with own(tmp_path / "s"):
        with pytest.raises(ConfigError, match="another search works in"), own(tmp_path / "s"):
            pass
        (tmp_path / "s" / "study.db").touch()
    with own(tmp_path / "s"):
        pass
    with pytest.raises(ConfigError, match="holds a search already"):
        check(tmp_path / "s", False, False)


def test_a_folder_of_a_search_that_never_began_goes(tmp_path):
    with own(tmp_path / "s"):
        pass
    assert not (tmp_path / "s").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="exists already and is no search"):
        check(tmp_path / "s", False, False)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is no directory"):
        check(tmp_path / "file", False, False)
