"""Measured tiles: what is kept, what wins, and what a damaged file costs."""

import dataclasses
import subprocess
import sys
import time

import pytest
from graphwright.backends.target import named
from graphwright.backends.tvm.tune import tiles, tunable
from graphwright.backends.tvm.tune.jsonl import append_lines, read_lines
from graphwright.backends.tvm.tune.search import search, timer
from graphwright.ir.errors import GraphwrightError

TARGET = named("x86-64-vnni")
SHAPE = (128, 384, 1536)


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path / "cache"))
    return tiles.own_file()


def test_recorded_tiles_are_found_by_every_part_of_their_key():
    assert tiles.lookup("dense", SHAPE, "int8", TARGET) is None
    tiles.record("dense", SHAPE, "int8", TARGET, {"rows": 12, "columns": 32}, 1.07)
    assert tiles.lookup("dense", list(SHAPE), "int8", TARGET) == {"rows": 12, "columns": 32}
    assert tiles.lookup("attention", SHAPE, "int8", TARGET) is None
    assert tiles.lookup("dense", (1, 384, 1536), "int8", TARGET) is None
    assert tiles.lookup("dense", SHAPE, "float32", TARGET) is None
    assert tiles.lookup("dense", SHAPE, "int8", named("x86-64-avx2")) is None
    assert tiles.lookup("dense", SHAPE, "int8", dataclasses.replace(TARGET, l2=TARGET.l2 // 2)) is None
    assert tiles.lookup("dense", SHAPE, "int8", dataclasses.replace(TARGET, cores=1)) is None
    renamed = dataclasses.replace(TARGET, name="host", memory=1)
    assert tiles.lookup("dense", SHAPE, "int8", renamed) == {"rows": 12, "columns": 32}


def test_the_last_record_counts():
    for rows in (4, 8):
        tiles.record("dense", SHAPE, "int8", TARGET, {"rows": rows}, 1.05)
    assert tiles.lookup("dense", SHAPE, "int8", TARGET) == {"rows": 8}


def test_own_measurements_win_over_shipped_ones(tmp_path, monkeypatch):
    tiles.record("dense", SHAPE, "int8", TARGET, {"rows": 4}, 1.1)
    shipped = tmp_path / "shipped.jsonl"
    shipped.write_bytes(tiles.own_file().read_bytes().replace(b'"rows":4', b'"rows":6'))
    tiles.own_file().unlink()
    monkeypatch.setattr(tiles, "SHIPPED", shipped)
    assert tiles.lookup("dense", SHAPE, "int8", TARGET) == {"rows": 6}
    tiles.record("dense", SHAPE, "int8", TARGET, {"rows": 4}, 1.1)
    assert tiles.lookup("dense", SHAPE, "int8", TARGET) == {"rows": 4}


def test_a_line_cut_short_costs_only_itself(own_file):
    tiles.record("dense", SHAPE, "int8", TARGET, {"rows": 4}, 1.1)
    tiles.record("dense", (1, 384, 384), "int8", TARGET, {"rows": 2}, 1.1)
    own_file.write_bytes(own_file.read_bytes()[:-9])
    assert tiles.lookup("dense", SHAPE, "int8", TARGET) == {"rows": 4}
    assert tiles.lookup("dense", (1, 384, 384), "int8", TARGET) is None
    tiles.record("dense", (1, 384, 384), "int8", TARGET, {"rows": 1}, 1.1)
    assert tiles.lookup("dense", (1, 384, 384), "int8", TARGET) == {"rows": 1}
    assert tiles.lookup("dense", SHAPE, "int8", TARGET) == {"rows": 4}


@pytest.mark.parametrize(
    "line", ["3", "{}", '"text"', "null", '{"kernel":"dense","shape":5,"dtype":"i","cpu":""}']
)
def test_lines_that_say_no_tile_are_left_out(own_file, line):
    tiles.record("dense", SHAPE, "int8", TARGET, {"rows": 4}, 1.1)
    with own_file.open("a") as file:
        file.write(line + "\n")
    assert tiles.lookup("dense", SHAPE, "int8", TARGET) == {"rows": 4}


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path / "file"))
    with pytest.raises(GraphwrightError, match=r"cannot keep .*file.*GRAPHWRIGHT_CACHE"):
        tiles.record("dense", SHAPE, "int8", TARGET, {"rows": 4}, 1.1)


def test_lines_of_several_processes_stay_whole(tmp_path):
    path = tmp_path / "lines"
    code = (
        "import sys; from pathlib import Path; from graphwright.backends.tvm.tune.jsonl import append_lines\n"
        "for i in range(200): append_lines(Path(sys.argv[1]), [[sys.argv[2] * 50, i]])"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), who]) for who in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    lines = read_lines(path)
    for who in "ab":
        assert [line[1] for line in lines if line[0] == who * 50] == list(range(200))


def test_appending_several_values_keeps_their_order(tmp_path):
    append_lines(tmp_path / "a" / "lines", [1, {"x": 2}])
    append_lines(tmp_path / "a" / "lines", [[3]])
    assert read_lines(tmp_path / "a" / "lines") == [1, {"x": 2}, [3]]


def pace(seconds):
    return lambda choice: lambda: seconds[choice]


def test_search_takes_the_fastest():
    assert search(["b", "c", "d"], pace({"a": 1.0, "b": 0.9, "c": 0.5, "d": 0.8}), "a") == ("c", 2.0)


def test_search_keeps_the_analytic_choice_within_noise():
    assert search(["b"], pace({"a": 1.0, "b": 0.98}), "a") == ("a", 1.0)
    assert search([], pace({"a": 1.0}), "a") == ("a", 1.0)


def test_search_is_not_fooled_by_a_machine_that_slows_down():
    clock = [1.0]

    def drifting(choice):
        def turn():
            clock[0] *= 1.05
            return clock[0] * {"a": 1.0, "b": 0.9}[choice]

        return turn

    choice, ratio = search(["b"], drifting, "a")
    assert choice == "b"
    assert ratio == pytest.approx(1 / 0.9, abs=0.02)


def test_luck_is_not_believed_twice():
    lucky = iter([0.5] * 10)
    timers = {"a": lambda: 1.0, "b": lambda: next(lucky, 1.0)}
    assert search(["b"], timers.__getitem__, "a") == ("a", 1.0)


def test_search_never_builds_the_analytic_choice_twice():
    built = []
    search(["b", "a"], lambda choice: built.append(choice) or (lambda: 1.0), "a")
    assert built == ["a", "b"]


def test_a_call_that_had_to_wait_does_not_count():
    waits = iter([0.0] * 10 + [0.02, 0.0] * 1000)
    assert timer(lambda: time.sleep(next(waits)))() < 0.01


def test_timer_counts_one_call():
    calls = []
    turn = timer(lambda: calls.append(1))
    before = len(calls)
    seconds = turn()
    assert before == 3
    assert len(calls) > 100  # a call of well under a microsecond, in turns of milliseconds
    assert seconds < 1e-3


@pytest.fixture
def kernel():
    """A kernel whose tile of 2 is twice as fast, and what was built of it."""
    built = []

    def build(shape, dtype, target, tile):
        built.append(tile["rows"])
        return lambda: {1: 1.0, 2: 0.5, 3: 1.5}[tile["rows"]]

    candidates = lambda shape, dtype, target: [{"rows": rows} for rows in (1, 2, 3)]
    return tunable.Tunable("toy", candidates, build), built


def test_a_build_that_asks_is_tuned_once(kernel):
    toy, built = kernel
    with tunable.asked() as questions:
        for _ in range(2):
            assert tunable.choose(toy, SHAPE, "int8", TARGET) == {"rows": 1}
    assert list(questions) == [tunable.Question(toy, SHAPE, "int8", TARGET)]
    seen = []
    gains = list(tunable.tune_tiles(questions, lambda *step: seen.append(step)))
    assert [gain for _, gain in gains] == [2.0]
    assert seen == [("toy 128x384x1536 int8", 0, 1)]
    assert built == [1, 2, 3]
    assert tunable.choose(toy, SHAPE, "int8", TARGET) == {"rows": 2}
    assert list(tunable.tune_tiles(questions)) == []
    assert built == [1, 2, 3]


def test_interrupted_tuning_keeps_what_it_found(kernel):
    toy, _ = kernel
    questions = [tunable.Question(toy, (rows, 8, 8), "int8", TARGET) for rows in (1, 2, 3)]

    def interrupt(description, done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(tunable.tune_tiles(questions, interrupt))
    assert len(list(tunable.tune_tiles(questions))) == 1


def test_questions_outside_are_not_collected(kernel):
    toy, _ = kernel
    with tunable.asked() as questions:
        pass
    tunable.choose(toy, SHAPE, "int8", TARGET)
    assert not questions
