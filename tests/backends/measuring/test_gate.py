from dataclasses import replace
from itertools import pairwise

import pytest
from graphwright.backends.cache import cache_directory
from graphwright.backends.measuring import gate
from graphwright.backends.measuring.decisions import Decisions, Rounds, digest
from graphwright.backends.measuring.effort import Effort
from graphwright.backends.measuring.gate import Measurer, interleave
from graphwright.backends.measuring.workloads import Workload, workloads
from graphwright.backends.target import named
from graphwright.ir.errors import MeasureError

QUIET, LOUD = (False, False), (True, True)


class Script:
    """Answers with given ratios, round by round, and counts its own time. loud: the asks, counted from the
    first timed turn on, that others' work disturbs: `slowed` times as slow."""

    def __init__(self, ratios, once=0.01, loud=(), slowed=3.0):
        self.ratios, self.once, self.now, self.asked = ratios, once, 0.0, []
        self.loud, self.slowed, self.quiet = loud, slowed, 0

    def __call__(self, name, runs):
        self.now += self.once * (runs + 1)
        loud = len(self.asked) - 1 in self.loud
        turn = max(0, self.quiet - 1) // 2
        self.asked.append((name, runs))
        self.quiet += not loud
        seconds = self.once if name == "before" else self.once / self.ratios[min(turn, len(self.ratios) - 1)]
        return seconds * (self.slowed if loud else 1), loud

    def clock(self):
        return self.now


def as_if_quiet(*given):
    """What is measured, whoever else is at work here."""
    found = interleave(*given)
    return replace(found, disturbed=(False,) * len(found.after))


def rounds_of(script, seconds=100.0, whether=False):
    return interleave(script, "before", "after", Effort(seconds=seconds), 0.0, whether, script.clock)


@pytest.mark.parametrize("ratio", [2.0, 0.5, 1.0, 1.01])
def test_a_plain_answer_takes_the_fewest_rounds(ratio):
    found = rounds_of(Script([ratio]))
    assert len(found.after) == 3
    assert found.speedup.median == pytest.approx(ratio)


def test_an_undecided_one_goes_on():
    found = rounds_of(Script([1.2, 0.9, 1.1, 0.95, 1.05, 1.1, 0.9, 1.2, 1.0]))
    assert len(found.after) == 9
    assert found.speedup.low < 1 < found.speedup.high


NO_LOSS = [1.06, 0.99, 1.02, 1.1, 0.99, 1.0]


def test_whether_a_program_is_slower_is_plain_before_how_much_faster_it_is():
    assert len(rounds_of(Script(NO_LOSS), whether=True).after) == 3
    assert len(rounds_of(Script(NO_LOSS)).after) == 9
    a_loss_among_them = [1.06, 0.97, *NO_LOSS]
    assert len(rounds_of(Script(a_loss_among_them), whether=True).after) == 9


@pytest.mark.parametrize(("ratios", "rounds"), [([1.2, 1.3], 2), ([0.8, 0.7], 2), ([1.2, 1.08], 3)])
def test_two_rounds_say_whether_where_they_differ_by_far(ratios, rounds):
    assert len(rounds_of(Script(ratios), whether=True).after) == rounds
    assert len(rounds_of(Script(ratios)).after) == 3


def test_how_long_a_call_takes_is_asked_once():
    script = Script([2.0])
    interleave(script, "before", "after", Effort(), 0.01, clock=script.clock)
    assert {runs for _, runs in script.asked} == {10}


def test_an_undecided_one_stops_when_the_time_is_up():
    assert len(rounds_of(Script([1.2, 0.9]), seconds=0.0).after) == 3


def test_a_disturbed_turn_is_taken_again():
    script = Script([1.5], loud={1, 3})  # the second turn, and the first of the next round
    found = rounds_of(script)
    names = [name for name, _ in script.asked[1:]]
    assert names == ["before", "after", "after", "after", "after", "before", "before", "after"]
    assert found.disturbed == (False, False, False)
    assert found.speedup.median == found.speedup.low == pytest.approx(1.5)


def test_rounds_that_stay_disturbed_do_not_count_where_enough_are_quiet():
    # The fourth and fifth ask are the second round's first turn and its repetition.
    found = rounds_of(Script([2.0], loud={2, 3}))
    assert found.disturbed == (False, True, False, False)
    assert found.after[1] == pytest.approx(3 * found.after[0])
    assert found.speedup.low == found.speedup.high == pytest.approx(2.0)


def test_what_every_loud_round_says_by_far_is_plain():
    found = rounds_of(Script([1.5, 1.6, 1.3], loud=range(1000), slowed=1.0))
    assert all(found.disturbed)
    assert not found.doubtful
    assert len(found.after) == 3


def test_loud_rounds_that_disagree_decide_nothing():
    loud = Rounds((1.5, 1.6, 1.0), (1.0, 1.0, 1.25), (True, True, False))
    assert loud.doubtful
    assert (loud.speedup.low, loud.speedup.high) == (0.8, 1.6)
    assert not replace(loud, disturbed=(False, False, False)).doubtful


def test_rounds_alternate_and_short_calls_are_repeated():
    script = Script([1.2, 0.9, 1.1, 0.9])
    rounds_of(script, seconds=0.0)
    assert [name for name, _ in script.asked[1:]] == ["before", "after", "after", "before", "before", "after"]
    assert {runs for _, runs in script.asked[1:]} == {10}
    slow = Script([2.0], once=3.0)
    rounds_of(slow)
    assert {runs for _, runs in slow.asked[1:]} == {1}


def test_measures_and_remembers(make, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path))
    before, after = make.encoder(), make.encoder(make.weights(1))
    calls = workloads(before, ["1x4", "8x12"])
    effort = Effort(seconds=0.5)
    monkeypatch.setattr(gate, "interleave", as_if_quiet)
    with Measurer(calls, threads=1, effort=effort) as measure:
        first = measure(before, after)
        assert first.keys() == measure.ms.keys() == {"1x4", "8x12"}
        assert all(0 < ratio.low <= ratio.median <= ratio.high for ratio in first.values())
        ms = dict(measure.ms)
        assert len(measure._workers) == 2
    monkeypatch.setattr(gate, "Worker", None)  # a second run starts nothing
    with Measurer(calls, threads=1, effort=effort) as measure:
        assert measure(before, after) == first
        assert measure.ms == ms
    with Measurer(calls, threads=1) as measure, pytest.raises(TypeError):  # a quick look is no decision
        measure(before, after)


def test_processes_live_on_for_the_next_questions(make, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path))
    programs = [make.encoder(make.weights(seed)) for seed in range(6)]
    started = []
    real = gate.Worker
    monkeypatch.setattr(gate, "Worker", lambda *a: started.append(a[2]) or real(*a))
    with Measurer(workloads(programs[0], ["1x4"]), threads=1, effort=Effort(seconds=0.1)) as measure:
        for before, after in pairwise(programs[: gate.HELD]):
            measure(before, after)
        assert len(started) == len(measure._workers) == gate.HELD
        measure(programs[3], programs[0])
        assert len(started) == gate.HELD
        measure(programs[0], programs[4])
        assert set(measure._workers) == {programs[number].fingerprint() for number in (0, 2, 3, 4)}
        monkeypatch.setattr(gate, "too_large", lambda sizes: len(list(sizes)) > 2)
        measure(programs[4], programs[5])
        assert len(measure._workers) == 2


def test_rounds_over_several_processes(make, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path))
    before, after = make.encoder(), make.encoder(make.weights(1))
    started, taken = [], []
    monkeypatch.setattr(Rounds, "doubtful", False)  # whatever else runs beside this test
    real, put = gate.Worker, Decisions.put
    monkeypatch.setattr(gate, "Worker", lambda *a: started.append(a[2]) or real(*a))
    monkeypatch.setattr(Decisions, "put", lambda self, key, r: taken.append(r) or put(self, key, r))
    with Measurer(workloads(before, ["1x4"]), threads=1, effort=Effort(seconds=0.0)) as measure:
        few = measure(before, after)
        sure = measure(before, after, "1x4", 3)
        assert len(started) == 2 + 6
        assert [len(rounds.after) for rounds in taken] == [3, 9]
        assert (measure(before, after), measure(before, after, "1x4", 3)) == (few, sure)  # kept apart
        assert len(started) == 8


def test_huge_programs_are_never_both_loaded(make, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(gate, "too_large", lambda sizes: list(sizes) == [3584, 3584])
    with Measurer(workloads(make.encoder(), ["1x4"]), threads=1, effort=Effort(seconds=0.0)) as measure:
        side_by_side, keep = [], measure._keep
        monkeypatch.setattr(
            measure, "_keep", lambda names: (keep(names), side_by_side.append(len(measure._workers)))
        )
        measure(make.encoder(), make.encoder(make.weights(1)))
        assert max(side_by_side) == 1
        assert not measure._workers  # nor does one stay beside the next pass


def test_what_a_measurement_depends_on_is_in_its_key(make, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(gate, "interleave", lambda *_: Rounds((1.0,), (0.5,), (False,)))
    a, b = make.encoder(), make.encoder(make.weights(1))
    calls = workloads(a, ["1x4"])

    def files(programs=(a, b), workloads=calls, threads=1, target=None):
        with Measurer(workloads, threads, target or named("x86-64-avx2")) as measure:
            measure(*programs)
        return len(list(tmp_path.rglob("*.json")))

    assert files() == files() == 1
    assert files(programs=(b, a)) == 2
    assert files(threads=2) == 3
    assert files(target=named("x86-64-vnni")) == 4
    assert files(workloads=[Workload("1x4", make.feed(1, 4, padding=1))]) == 5


def test_damaged_records_are_measured_again(tmp_path):
    decisions, key = Decisions(tmp_path), {"k": 1}
    assert decisions.get(key) is None
    decisions.put(key, Rounds((2.0, 2.0), (1.0, 1.0), QUIET))
    assert decisions.get(key) == Rounds((2.0, 2.0), (1.0, 1.0), QUIET)
    assert decisions.get({"k": 2}) is None
    (path,) = tmp_path.rglob("*.json")
    damaged = [b"", b"{", b"[]", b"\xff", b'{"before": [1], "after": [1, 2]}', b'{"before": [], "after": []}',
               b'{"before": [1], "after": [-1], "disturbed": [false]}', b'{"before": [1], "after": ["x"]}',
               b'{"before": [NaN], "after": [1], "disturbed": [false]}',
               b'{"before": [1], "after": [1]}',
               b'{"before": [1], "after": [1], "disturbed": []}']  # fmt: skip
    for content in damaged:
        path.write_bytes(content)
        assert decisions.get(key) is None, content


def test_of_two_runs_at_once_the_first_decides(tmp_path):
    """Both go on with what is on record, or they would build different bytes."""
    one, other, key = Decisions(tmp_path), Decisions(tmp_path), {"k": 1}
    first = Rounds((2.0, 2.0), (1.0, 1.0), QUIET)
    assert one.put(key, first) == first
    assert other.put(key, Rounds((1.0, 1.0), (1.0, 1.0), QUIET)) == first
    assert other.get(key) == first
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    path.write_bytes(b"{")
    second = Rounds((3.0,), (1.0,), (False,))
    assert one.put(key, second) == second == one.get(key)  # what is damaged decides nothing


def test_what_is_in_doubt_gives_way_to_what_is_not(tmp_path):
    decisions, key = Decisions(tmp_path), {"k": 1}
    loud = Rounds((2.0, 1.0), (1.0, 1.0), LOUD)
    assert decisions.put(key, loud) == loud == decisions.get(key)
    assert (
        decisions.put(key, Rounds((1.0, 1.0), (1.0, 1.0), LOUD)) == loud
    )  # as loud as before decides as before
    quiet = Rounds((3.0, 3.0), (1.0, 1.0), QUIET)
    assert decisions.put(key, quiet) == quiet == decisions.get(key)
    assert decisions.put(key, loud) == quiet


def test_a_ratio_in_doubt_is_measured_again_and_falls_back_to_what_was_decided(make, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path))
    before, after = make.encoder(), make.encoder(make.weights(1))
    answers = [
        Rounds((2.0, 1.0), (1.0, 1.0), LOUD),
        Rounds((1.0, 1.0), (1.0, 1.0), LOUD),
        Rounds((3.0, 3.0), (1.0, 1.0), QUIET),
    ]
    monkeypatch.setattr(gate, "interleave", lambda *_: answers.pop(0))

    def ratio():
        with Measurer(workloads(before, ["1x4"]), threads=1) as measure:
            found = measure(before, after)["1x4"].median
            return found, measure.loud

    first, said = ratio()
    assert first == 1.5
    assert said.startswith("The machine was busy with other work: 1 of 1 ratios")
    assert ratio() == (1.5, said)  # still loud: as the same processor decided before
    assert ratio() == (3, "")
    assert ratio() == (3, "")
    assert not answers


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    decisions = Decisions(tmp_path / "file" / "below")
    decisions.put({"k": 1}, Rounds((1.0,), (1.0,), (False,)))
    assert decisions.get({"k": 1}) is None


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine"
    monkeypatch.delenv("GRAPHWRIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_directory() == tmp_path / "graphwright"


def test_a_digest_sees_padding_where_names_do_not(make):
    same = [digest(Workload("w", make.feed(padding=p))) for p in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


def test_only_onnx_programs_are_timed(make, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path))
    program = make.encoder()
    with (
        Measurer(workloads(program, ["1x4"])) as measure,
        pytest.raises(MeasureError, match="run to-onnx first"),
    ):
        measure(program, replace(program, dialect="fx"))
    with pytest.raises(MeasureError, match="at least one workload"):
        Measurer([])


def test_edges_are_those_of_quiet_rounds_where_there_are_any():
    before, after = (2.0, 4.0, 9.0), (1.0, 1.0, 1.0)
    some = Rounds(before, after, (False, False, True))
    assert some.edges == (2.0, 4.0)
    assert some.speedup.interval == (2.0, 9.0)
    assert Rounds(before, after, (True, True, True)).edges == (2.0, 9.0)
