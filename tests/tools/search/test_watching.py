"""What is said while a search works."""

from dataclasses import replace

from graphwright.tools.search.explore import Limits
from graphwright.tools.search.front import front
from graphwright.tools.search.goal import goal
from graphwright.tools.search.tried import Tried
from graphwright.tools.search.watching import Watching

GOAL = goal("drop<=1", "latency,size").at(("1x8",))


class Heard:
    quiet, json = True, False

    def __init__(self):
        self.said = []

    def say(self, sentence):
        self.said.append(sentence)

    def progress(self, description, done=0, total=0):
        self.line = description


def tried(number, pipeline="to-onnx", state="complete", why="", seconds=1.0, drop=0.5):
    values = {} if why else {"latency@1x8": 10.0 - number, "size": 5.0, "drop": drop}
    return Tried(number, state, {}, pipeline, "onnxruntime", values, why, seconds)


def heard(*moments):
    """What is said over the course of these moments, each all trials that are told."""
    outer = Heard()
    watching = Watching(outer)
    watching.begin(Limits(trials=9))
    for known in moments:
        watching.after(known, front(known, GOAL))
    return outer


def test_a_new_member_of_the_front_is_told():
    outer = heard([], [tried(0)], [tried(0), tried(1, drop=3.0)], [tried(0), tried(1, drop=3.0), tried(2)])
    assert outer.said == [
        "Trial 0 is on the front: 10 ms at 1x8, 5 MB, 0.50 points lost. exact passes alone",
        "Trial 2 is on the front: 8 ms at 1x8, 5 MB, 0.50 points lost. exact passes alone",
    ]
    assert outer.line == "3 trials, best 8 ms at 1x8, 5 MB, 6 trials left: deciding"


def test_what_could_not_be_made_is_told_once_a_reason():
    failed = tried(1, "to-onnx,quantize-dynamic", "refused", "unexpected ValueError: 7")
    again, other = (
        replace(failed, number=2),
        replace(failed, number=3, why="there is not enough memory for it"),
    )
    forbidden = replace(failed, number=4, why="a contract", seconds=0.0)
    known = [tried(0), failed, again, other, forbidden]
    outer = heard([], *(known[: n + 1] for n in range(5)))
    assert outer.said[1:] == [
        "Trial 1 could not be made: unexpected ValueError: 7. quantize-dynamic",
        "Trial 3 could not be made: there is not enough memory for it. quantize-dynamic",
    ]


def test_a_search_that_goes_on_tells_nothing_that_was_told():
    known = [tried(0), tried(1, "to-onnx", "refused", "why")]
    assert heard(known, known).said == []
