"""A pass in the bodies of If and Loop: it runs on each as on a program of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...ir.blocks import recognise
from ...ir.errors import GraphwrightError
from ...ir.footprint import weight_bytes
from ...ir.inputs.probe import probes
from ...ir.program import Program
from ...ir.view import view
from .contract import Context, Exact, Pass, Result

if TYPE_CHECKING:
    from ...ir.bodies.opened import Body

_FEW = 1 << 12  # bytes: shapes and numbers
Statistics = Mapping[str, int | float | str]


def run_with_bodies(pass_: Pass, program: Program, context: Context) -> Result:
    """What a pass makes of a program, the bodies in its graph at any depth included.

    A body that no probe enters stays as it is, for nothing could be verified there, and so does one that the
    pass fails in, or one that it can't be run in; each is named in the notes.
    """
    result = pass_.run(program, context)
    if program.dialect != "onnx" or not isinstance(result, Result) or result.program.dialect != "onnx":
        return result
    from ...ir.bodies.opened import bodies

    opened = bodies(result.program)
    if not opened:
        return result
    if not pass_.in_bodies:
        said = f"{_held(opened)}: left alone, '{pass_.name}' looks at a graph as a whole"
        return replace(result, notes=(*result.notes, said))
    if not isinstance(pass_.effect, Exact):
        return _in_bodies(pass_, result, opened, context)
    whole = _in_bodies(pass_, replace(result, program=result.program.clone()), None, context)
    if weight_bytes(whole.program) <= weight_bytes(result.program) + _FEW:
        return whole
    said = f"{_held(opened)}: left alone, what they have in common would be stored twice"
    return replace(result, notes=(*result.notes, said))


def _in_bodies(pass_: Pass, result: Result, opened: Sequence[Body] | None, context: Context) -> Result:
    from ...ir.bodies.feeds import body_feeds
    from ...ir.bodies.opened import bodies, put_back

    program = result.program
    opened = bodies(program) if opened is None else opened
    tried = body_feeds(program, opened, probes(program, context.seed), context.threads)
    shown = body_feeds(program, opened, context.calibration, context.threads)
    chosen = {} if context.chosen is None else context.chosen  # branches that share weights choose alike
    changed, statistics = result.modified, [result.statistics]
    notes = list(result.notes) if result.modified else []
    said: dict[str, list[str]] = {}
    for body, entering, examples in zip(opened, tried, shown, strict=True):
        if not entering:
            said.setdefault("left as it is: no probe enters it", []).append(str(body))
            continue
        if context.calibration and not examples and "calibration" in pass_.requires():
            said.setdefault("left as it is: no example enters it", []).append(str(body))
            continue
        inside = replace(body.program, feeds=tuple(entering))
        own = replace(context, calibration=examples, training=(), measure=None, score=None, chosen=chosen)
        try:
            inner = run_with_bodies(pass_, inside, own)
            if inner.modified:
                put_back(program, body, inner.program)
        except GraphwrightError as error:
            said.setdefault(f"left as it is: {error}", []).append(str(body))
            continue
        for note in inner.notes:
            said.setdefault(note, []).append(str(body))
        if inner.modified:
            changed = True
            statistics.append(inner.statistics)
    if changed and not result.modified:
        statistics = statistics[1:]
    elif not changed:
        notes = list(result.notes)
    if changed:
        _drop_unused(program)
    notes += [f"in {' and '.join(places)}: {note}" for note, places in said.items()]
    return replace(result, modified=changed, statistics=_summed(statistics), notes=tuple(notes))


def _held(opened: Sequence[Body]) -> str:
    """What stands in bodies, and in which: "2 attentions and 1 feed-forward in 2 bodies of If"."""
    counts: Counter[str] = Counter()
    for body in opened:
        blocks = recognise(view(body.program))
        counts["attention"] += len(blocks.attention)
        counts["feed-forward"] += len(blocks.feed_forward)
    found = [f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts.items() if count]
    kinds = " and ".join(dict.fromkeys(body.node.op_type for body in opened))
    what = f"{' and '.join(found)} in " if found else ""
    return f"{what}{len(opened)} {'body' if len(opened) == 1 else 'bodies'} of {kinds}"


def _drop_unused(program: Program) -> None:
    initializers = program.graph.graph.initializers
    for name in [name for name, value in initializers.items() if not value.uses()]:
        if not (initializers[name].is_graph_output() or initializers[name].is_graph_input()):
            del initializers[name]


def _summed(parts: Sequence[Statistics]) -> Statistics:
    """Counts and shares ("2 of 3 norms") added up; of anything else the first."""
    found: dict[str, int | float | str] = {}
    for part in parts:
        for name, number in part.items():
            before = found.get(name)
            if isinstance(number, int) and isinstance(before, int):
                found[name] = before + number
            elif (a := _share(number)) and (b := _share(before)):
                found[name] = f"{int(a[1]) + int(b[1])} of {int(a[2]) + int(b[2])}{a[3]}"
            else:
                found.setdefault(name, number)
    return found


def _share(number: int | float | str | None) -> re.Match[str] | None:
    return re.fullmatch(r"(\d+) of (\d+)(.*)", str(number))
