"""What comes into bodies: seen while the program around them runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..execute import execute, observe
from ..program import Program
from .opened import Body

Feed = Mapping[str, np.ndarray]
TURNS = 3  # of a loop, for each feed


def body_feeds(
    program: Program, opened: Sequence[Body], feeds: Sequence[Feed], threads: int = 2
) -> list[list[Feed]]:
    """For each body what enters it when the program is fed: once for each feed that takes its branch, for
    each of the first turns of its loop. None for a Scan's."""
    wanted: dict[str, ir.Value] = {}
    for body in opened:
        for value in (*body.node.inputs, *body.captured):
            if value is not None and _constant(value) is None:
                wanted[str(value.name)] = value
    given = {spec.name for spec in program.inputs}
    inside = [name for name in wanted if name not in given]
    seen = observe(program, inside, feeds, threads) if inside else ({} for _ in feeds)
    found: list[list[Feed]] = [[] for _ in opened]
    for feed, values in zip(feeds, seen, strict=True):
        known = {**feed, **values}
        for body, entering in zip(opened, found, strict=True):
            entering += _entering(body, known, threads)
    return found


def _entering(body: Body, known: Feed, threads: int) -> list[Feed]:
    node, names = body.node, [spec.name for spec in body.program.inputs]
    outside = {
        name: known[str(value.name)] for name, value in zip(names[body.formal :], body.captured, strict=True)
    }
    if node.op_type == "If":
        taken = bool(np.all(_value(node.inputs[0], known)))
        return [outside] if taken == (body.attribute == "then_branch") else []
    if node.op_type != "Loop":
        return []
    limit, going, *state = (_value(value, known) for value in node.inputs)
    going = np.array(True) if going is None else going
    turns: list[Feed] = []
    while len(turns) < (TURNS if limit is None else min(TURNS, int(limit))) and bool(np.all(going)):
        if turns:
            made = execute(body.program, [turns[-1]], threads)[0]
            going, *state = (made[name] for name in body.program.outputs[: 1 + len(state)])
            if not bool(np.all(going)):
                break
        own = (np.array(len(turns), np.int64), np.asarray(going), *state)
        turns.append({**dict(zip(names, own, strict=False)), **outside})
    return turns


def _constant(value: ir.Value) -> ir.TensorProtocol | None:
    return None if value.is_graph_input() else ir.convenience.get_const_tensor(value)


def _value(value: ir.Value | None, known: Feed) -> Any:
    if value is None:
        return None
    tensor = _constant(value)
    return known[str(value.name)] if tensor is None else tensor.numpy()
