"""Attention sinks: learned scores beside those of the keys, which take up probability and have no value.

gpt-oss (OpenAI, 2025, arXiv:2508.10925) joins one a head to the scores and leaves its probability out of the
product with the values, after Xiao et al. (2023, arXiv:2309.17453).
"""

from __future__ import annotations

from ..values import Value
from .refused import Refused
from .walk import END, Statics, bare


def with_sinks(softmax_of: Value, static: Statics) -> tuple[Value, Value | None, list[Value]]:
    """(scores of the keys, sinks, body) of what a softmax is taken of; (itself, None, []) without sinks."""
    body: list[Value] = []
    value = bare(softmax_of)
    x, highest = value.inputs[:2] if value.op == "sub" else (None, None)
    if x is not None and highest is not None and _is_highest(highest, x):  # changes no probability
        body += [highest, value]
        value = bare(x)
    if value.op != "concat" or len(value.inputs) != 2 or not on_last(value):
        return (softmax_of, None, []) if not body else (value, None, body)
    scores, sinks = value.inputs
    assert scores is not None
    assert sinks is not None
    if not static(sinks):
        if static(scores):
            raise Refused(value, "learned scores stand before those of the keys, not after them")
        raise Refused(value, "the scores are two sets of keys side by side, from two products")
    return scores, sinks, [value, *body]


def check_sinks(sinks: Value | None, scores: Value, cut: Value | None, probabilities: Value) -> None:
    """Refuses columns that the softmax has and the values lack, unless they are the sinks'."""
    if sinks is None and cut is None:
        return
    if sinks is None:
        raise Refused(cut or probabilities, "some keys are left out after the softmax (slice)")
    if cut is None:
        raise Refused(probabilities, "the probabilities of learned scores weigh values, too")
    count = sinks.shape[-1] if sinks.shape else None
    start, end = cut.attrs["start"], cut.attrs["end"]
    same = bool(
        cut.shape and scores.shape and cut.shape[-1] is not None and cut.shape[-1] == scores.shape[-1]
    )
    dropped = isinstance(count, int) and end == -count
    if start != 0 or cut.attrs["step"] != 1 or (not dropped and (not same or (end or 0) >= END)):
        raise Refused(cut, "what is left out after the softmax are not the learned scores")


def on_last(value: Value) -> bool:
    """Whether an operator works along the last axis."""
    axis = value.attrs["axis"]
    return axis == -1 or (value.shape is not None and axis == len(value.shape) - 1)


def _is_highest(highest: Value, x: Value) -> bool:
    """Whether a value is the largest of another along the last axis."""
    x, top = bare(x), bare(highest)
    if top.op != "max" or top.inputs[0] is None or bare(top.inputs[0]) != x:
        return False
    return tuple(top.attrs["axes"]) in ((-1,), (len(x.shape or ()) - 1,)) and bool(top.attrs["keepdim"])
