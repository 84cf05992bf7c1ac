"""A search on a real Ray of two nodes: machines that are lost, and machines that are left out."""

import os
import re
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import graphwright as gw
import pytest
import ray
from graphwright.ir.errors import ConfigError, GraphwrightError
from graphwright.tools.search.cluster.joined import RESOURCE, joined
from graphwright.tools.search.cluster.machines import here, machines
from graphwright.tools.search.cluster.workers import Cluster
from graphwright.tools.search.making import Here
from pretend_cluster import WIDE, Noted
from pretend_search import GOAL, record, run
from ray_nodes import nodes

TRIALS = 12
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two():
    """Two nodes that may be measured on as what this machine is."""
    mine = {RESOURCE + here().model: 1}
    with nodes(mine, mine, paths=[Path(__file__).parents[3] / "support"]) as found:
        yield found


def searched(folder, notes, trials=TRIALS, fatal=None, resume=False):
    notes.mkdir(exist_ok=True)
    with joined(), Cluster(partial(Noted, notes, fatal=fatal), GOAL) as cluster:
        return run(folder, trials, space=WIDE, workers=lambda evaluate: cluster, resume=resume)


def alone(folder, ahead):
    def workers(evaluate):
        one = Here(evaluate)
        one.ahead = ahead
        return one

    run(folder, TRIALS, space=WIDE, workers=workers)


def begun(notes):
    """(trial, process), each time that one was begun."""
    path = notes / "notes"
    return re.findall(r"evaluate (\d+) by (\d+)\n", path.read_text() if path.is_file() else "")


def once(condition, do, *given):
    """Do something, beside the test, as soon as a condition holds."""

    def watch():
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        do(*given)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_worker_killed_mid_trial_and_an_interruption_lose_nothing(two, tmp_path):
    """And it ends as a search in one process does that begins as many ahead, bundles and all."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" ignores it
    once(
        lambda: [number for number, _ in begun(tmp_path / "notes")].count("2") == 2,
        os.kill,
        os.getpid(),
        signal.SIGINT,
    )
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "s", tmp_path / "notes", trials=10_000, fatal=2)
    signal.signal(signal.SIGINT, before)
    early = record(tmp_path / "s")[0]
    assert any(one["state"] == "complete" for one in early)
    assert not ray.is_initialized()
    done = sum(one["state"] != "running" for one in early)
    trials = max(TRIALS, done + 2)
    searched(tmp_path / "s", tmp_path / "notes", trials, fatal=2, resume=True)
    found = record(tmp_path / "s")
    assert [one["number"] for one in found[0]] == list(range(len(found[0])))
    assert not any(one["state"] == "running" for one in found[0])
    alone(tmp_path / "alone", ahead=4)
    assert found[0][:TRIALS] == record(tmp_path / "alone")[0]
    made = begun(tmp_path / "notes")
    assert len({process for _, process in made}) >= 3  # two, and one for the killed
    numbers = [int(number) for number, _ in made]
    again = {number for number in numbers if numbers.count(number) > 1}
    assert 2 in again
    unfinished = {one["number"] for one in early if one["state"] == "running"}
    assert again <= {2} | unfinished
    for number in found[1]:
        path = tmp_path / "s" / "members" / f"{number:04d}" / "values.json"
        assert path.is_file()


def test_a_model_is_searched_on_the_cluster(two, encoder_directory, tmp_path):
    """Real candidates: made, measured and saved by workers, and the bundles are here."""
    space = tmp_path / "space.yaml"
    slots = ("vocabulary", "structure", "attention", "embedding", "rank", "tying", "tokens", "recovery")
    space.write_text("bits: [none, store-half]\n" + "".join(f"{slot}: [none]\n" for slot in slots))
    said = {"goal": "size<=1GB", "minimise": "latency,size", "space": space, "threads": 1, "quick": True}
    out = tmp_path / "o"
    found = gw.search(encoder_directory, out, trials=2, shapes="1x4", engine="ray", **said)
    assert [one.state for one in found.trials] == ["complete"] * 2
    base = found.record["baseline"]["latency@1x4"]
    for one in found.trials:
        assert one.values["latency@1x4"] == pytest.approx(base / one.values["speedup@1x4"])
    for number in found.record["front"]:
        assert gw.load(out / found.record["bundles"][str(number)])(["a cat runs"]).shape == (1, 32)
    assert found.trials[1].values["size"] < 0.6 * found.trials[0].values["size"]


def test_another_machine_is_left_out_in_a_sentence(two, encoder_directory, tmp_path, monkeypatch):
    with joined():
        mine = here()
        assert len(machines({}, mine)) == 2
        assert machines(known := {}, replace(mine, version="graphwright 0.0")) == []
        assert set(known.values()) == {
            f"127.0.0.{n} is left out: it has {mine.version}, and this is graphwright 0.0: install the same "
            "there"
            for n in (2, 3)
        }
        assert machines(known := {}, replace(mine, processor="Z80, 1 cores, ")) == []
        assert all("this search measures on Z80, 1 cores, ; times of two are not mixed" in one
                   for one in known.values())  # fmt: skip
        first, second = ray.nodes()
        named = {**first, "Resources": {RESOURCE + "Z80": 1.0, "CPU": 1.0}}
        plain = {**second, "Resources": {"CPU": 1.0}}
        monkeypatch.setattr(ray, "nodes", lambda: [named, plain])
        assert machines(known := {}, mine) == []
        assert f"was started to measure as 'Z80' and is a {mine.model!r}" in known[first["NodeID"]]
        assert f'"{RESOURCE}{mine.model}": 1' in known[second["NodeID"]]
        words = {"trials": 1, "shapes": "1x4", "threads": 1, "quick": True, "engine": "ray"}
        with pytest.raises(ConfigError, match="no machine of the cluster can be measured on"):
            gw.search(encoder_directory, tmp_path / "o", "size<=1GB", **words)
        assert not (tmp_path / "o").exists()


def test_a_lost_machine_ends_nothing_and_the_last_one_does(two, tmp_path):
    """The last test of these nodes: they are gone after it."""
    killed = once(lambda: len(begun(tmp_path / "notes")) > 6, two.kill, 1)
    searched(tmp_path / "s", tmp_path / "notes", trials=30)
    killed.join()
    states = [one["state"] for one in record(tmp_path / "s")[0]]
    assert (len(states), "running" in states) == (30, False)
    with joined():
        assert sum(one["Alive"] for one in ray.nodes()) == 1
    assert two.stop() == []
    with pytest.raises(GraphwrightError, match=f"no Ray answers at {two.address}: start one with `ray start"):
        searched(tmp_path / "t", tmp_path / "notes")
