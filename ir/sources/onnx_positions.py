"""How long the inputs of an ONNX model may be: what convolutions need, what tables of positions have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ..inputs.probe import values
from ..onnx.execute import execute_onnx
from ..onnx.graph import OnnxView
from ..spec import InputSpec

Bounds = tuple[int, int]
_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool"})
_SOUND, _IMAGE = 1 << 17, 1 << 10  # largest sizes tried for one free axis, and for several


def bounds(
    model: ir.Model, view: OnnxView, specs: Sequence[InputSpec], symbols: Mapping[str, Bounds]
) -> dict[str, Bounds]:
    """The symbols' bounds, drawn in to what the graph can take.

    Parts of the graph are run alone at a few sizes; a size at which a part fails is an answer, not an error.

    Args:
        symbols: bounds known so far, of every symbol in the specs.
    """
    found = dict(symbols)
    free = [symbol for symbol in found if symbol != "batch" and found[symbol][0] < found[symbol][1]]
    trials = _Trials(model, specs, {symbol: low for symbol, (low, _) in found.items()})
    for symbol, least in _least(trials, model, free, found).items():
        found[symbol] = (least, found[symbol][1])
        trials.small[symbol] = least
    for rows, ids, place in _positions(model, view):
        sizes = view.sizes(ids)
        told = sizes[place] if sizes is not None and place is not None and place < len(sizes) else None
        if isinstance(told, int):
            continue
        for symbol in [told] if told in free else free:
            low, high = found[symbol]
            greatest = rows - 1 if told == symbol else _greatest(trials, symbol, rows, ids, place, high)
            if greatest is not None:
                found[symbol] = (low, max(low, min(high, greatest)))
    return found


class _Trials:
    """Runs parts of a model. small: a size of each symbol that it takes, used for those not named."""

    def __init__(self, model: ir.Model, specs: Sequence[InputSpec], small: Mapping[str, int]) -> None:
        self.model, self.specs, self.small = model, specs, dict(small)

    def at(self, wanted: ir.Value, sizes: Mapping[str, int]) -> np.ndarray | None:
        """A value computed from one row of the largest ids, nothing masked; None where that fails."""
        sizes = {**self.small, **sizes}
        random = np.random.default_rng(0)
        feed = {}
        for spec in self.specs:
            array = values(spec, sizes, "ones", random)
            feed[spec.name] = np.full_like(array, spec.high - 1) if spec.high else array
        try:
            graph = ir.convenience.extract(self.model.graph, list(self.model.graph.inputs), [wanted])
            part = ir.Model(graph, ir_version=self.model.ir_version)
            used = {value.name for value in part.graph.inputs}
            name = wanted.name or ""
            given = {key: array for key, array in feed.items() if key in used}
            (result,) = execute_onnx(part, [name], [given])
        except Exception:  # ONNX Runtime's errors have no base of their own
            return None
        return result[name]


def _least(
    trials: _Trials, model: ir.Model, free: Sequence[str], known: Mapping[str, Bounds]
) -> dict[str, int]:
    """The smallest size of each symbol that the convolutions take."""
    last = next((node for node in reversed(list(model.graph)) if _needy(node)), None)
    if last is None or not free:
        return {}
    wanted = last.outputs[0]

    def runs(sizes: Mapping[str, int]) -> bool:
        result = trials.at(wanted, sizes)
        return result is not None and result.size > 0

    if runs({}):
        return {}
    size = 1
    largest = _SOUND if len(free) == 1 else _IMAGE
    while not runs(sizes := {s: min(max(known[s][0], size), known[s][1]) for s in free}):
        size *= 2
        if size > largest:
            return {}
    least = {}
    for symbol in free:
        low, high = known[symbol][0], sizes[symbol]
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if runs({**sizes, symbol: middle}) else (middle + 1, high)
        least[symbol] = high
    return least


def _needy(node: ir.Node) -> bool:
    """Whether a convolution or a pooling can be given too little."""
    padding = node.attributes.get_string("auto_pad", "NOTSET")
    if node.op_type not in _CONVOLUTIONS or padding.startswith("SAME"):
        return False
    kernel = list(node.attributes.get_ints("kernel_shape", ()))
    if not kernel and len(node.inputs) > 1 and node.inputs[1] is not None:
        kernel = [size for size in list(node.inputs[1].shape or ())[2:] if isinstance(size, int)]
    rank = len(kernel)
    pads = node.attributes.get_ints("pads", (0,) * 2 * rank)
    apart = node.attributes.get_ints("dilations", (1,) * rank)
    return any((kernel[i] - 1) * apart[i] > pads[i] + pads[rank + i] for i in range(rank))


def _positions(model: ir.Model, view: OnnxView) -> Iterator[tuple[int, ir.Value, int | None]]:
    """(rows, value, element): the value, or that element of it, must stay below as many rows. Ids that are
    neither inputs nor constant, and the ends of slices of an axis of one size."""
    for value in view:
        if value.op in ("embedding", "gather"):
            table, ids = value.inputs[:2]
            if table is None or ids is None or ids.op in ("input", "const") or not table.shape:
                continue
            rows = table.shape[value.attrs.get("axis", 0)]
            if isinstance(rows, int) and table.op == "const":
                yield rows, ids.native, None
    for node in model.graph:
        if node.op_type == "Slice" and len(node.inputs) > 2:
            yield from _ends(view, node)


def _ends(view: OnnxView, node: ir.Node) -> Iterator[tuple[int, ir.Value, int | None]]:
    source, ends, axes = (*node.inputs, None)[0], node.inputs[2], (*node.inputs, None)[3]
    shape = view.of(source).shape
    if ends is None or ir.convenience.get_const_tensor(ends) is not None or shape is None:
        return
    given = ir.convenience.get_const_tensor(axes) if axes is not None else None
    chosen = given.numpy().reshape(-1).tolist() if given is not None else list(range(len(shape)))
    for place, axis in enumerate(chosen):
        rows = shape[axis]
        if isinstance(rows, int) and rows > 1:
            yield rows + 1, ends, place


def _greatest(
    trials: _Trials, symbol: str, rows: int, ids: ir.Value, place: int | None, known: int
) -> int | None:
    """The largest size at which positions stay below `rows`: two short runs show whether they grow by one
    with the size, a third that they leave the table just past the size foretold.

    known: a bound; no more is asked where this one is no smaller.
    """

    def at(size: int) -> tuple[int, tuple[int, ...]] | None:
        found = trials.at(ids, {symbol: size})
        if found is None or found.size <= (place or 0):
            return None
        return int(found.max() if place is None else found.reshape(-1)[place]), found.shape

    short = trials.small[symbol] + 2
    first, second = at(short), at(short + 3)
    if first is None or second is None or second[0] - first[0] != 3:
        return None
    bound = rows - 1 - (first[0] - short)
    if not trials.small[symbol] <= bound < known:
        return None
    beyond = at(bound + 1)
    # The positions leave the table, or are a part of another one that ends there.
    leaves = beyond is None or beyond[0] >= rows or (place is None and at(bound) == beyond)
    return bound if leaves else None
