"""What each graph input is for: read from what the graph does with it, then from its name."""

from __future__ import annotations

from collections.abc import Mapping

from .program import InputSpec, Role
from .view import GraphValue, GraphView

# What may stand between an input and the table it looks up.
_CARRY = frozenset({"cast", "identity", "reshape", "unsqueeze", "squeeze", "expand", "transpose"})
_SMALL = 16  # rows of a table of token types, at most


def input_specs(
    view: GraphView, shapes: Mapping[str, tuple[int | str, ...]], dtypes: Mapping[str, str]
) -> tuple[InputSpec, ...]:
    """One spec per graph input, in order.

    Integers that index a table are ids, and the table's rows bound them (`high`); what shares the shape of
    ids and indexes nothing is their mask; floats are told apart by rank and by the layer that reads them.

    Args:
        view: the graph.
        shapes: input name -> integers and symbol names.
        dtypes: input name -> numpy's name of its type.
    """
    tables = {value.name: _tables(value) for value in view.inputs}
    ids = {name: min(rows) for name, rows in tables.items() if rows}
    specs = []
    for value in view.inputs:
        name = value.name
        if name in ids or "token_type" in name or "position_ids" in name:  # the latter two may be unused
            role = _ids_role(name, ids)
        elif _masks(name, shapes, ids):
            role = "decoder_attention_mask" if name.startswith("decoder") else "attention_mask"
        elif dtypes[name].startswith(("float", "bfloat")):
            role = _float_role(value, len(shapes[name]))
        else:
            role = "other"
        specs.append(InputSpec(name, dtypes[name], tuple(shapes[name]), role, ids.get(name)))
    return tuple(specs)


def _tables(value: GraphValue) -> list[int]:
    """Rows of every table that the input indexes directly."""
    rows = []
    for user in _readers(value):
        if user.op == "embedding" and user.inputs[1] is not None:
            table = user.inputs[0]
            if table is not None and table.shape and isinstance(table.shape[0], int):
                rows.append(table.shape[0])
    return rows


def _readers(value: GraphValue) -> list[GraphValue]:
    """Users of the value, looking through operations that only carry it along."""
    found: list[GraphValue] = []
    stack = list(value.users)
    while stack:
        user = stack.pop()
        if user.op in _CARRY:
            stack.extend(user.users)
        else:
            found.append(user)
    return found


def _ids_role(name: str, ids: Mapping[str, int]) -> Role:
    if "position" in name:
        return "position_ids"
    if "token_type" in name or "segment" in name:
        return "token_type_ids"
    if name in ids and ids[name] <= _SMALL < max(ids.values()):
        return "token_type_ids"
    return "decoder_token_ids" if name.startswith("decoder") else "token_ids"


def _masks(name: str, shapes: Mapping[str, tuple[int | str, ...]], ids: Mapping[str, int]) -> bool:
    """Of the shape of some ids, without being looked up, or called a mask and of rank two."""
    shape = shapes[name]
    return len(shape) == 2 and ("mask" in name or any(shapes[other] == shape for other in ids))


def _float_role(value: GraphValue, rank: int) -> Role:
    operators = {user.op for user in _readers(value)}
    if rank == 4 and "conv2d" in operators:
        return "pixel_values"
    if rank == 3:
        return "audio_features" if "conv1d" in operators else "hidden"
    return "other"
