"""What each graph input is for: read from what the graph does with it; its name is a hint only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..blocks.mask import HIDDEN
from ..spec import InputSpec, Role
from ..values import GraphValue, GraphView
from .hiding import Hiding, hiding
from .uses import Range, ranges, uses

Shape = tuple[int | str, ...]
_SMALL = 16  # rows of a table of token types, at most
_HIDES = ("padding_mask", "pad_mask")  # what PyTorch calls masks that are True where they hide


def input_specs(
    view: GraphView,
    shapes: Mapping[str, Shape],
    dtypes: Mapping[str, str],
    examples: Mapping[str, np.ndarray] | None = None,
) -> tuple[InputSpec, ...]:
    """One spec per graph input, in order.

    Integers that index a table are ids, and the table's rows bound them; those that index an axis, or are
    compared with positions along one, follow its size. What hides keys from queries, or values, is a mask,
    and which of its values hide is computed. Floats are told apart by rank and by the layer that reads them.

    Args:
        view: the graph.
        shapes: input name -> integers and symbol names.
        dtypes: input name -> numpy's name of its type.
        examples: inputs that came with the model; of floats the shape alone is looked at.
    """
    examples = examples or {}
    seen = {name: _extremes(example) for name, example in examples.items()}
    facts = {
        value.name: _facts(view, value, shapes[value.name], examples.get(value.name)) for value in view.inputs
    }
    ids = {name: found.rows for name, found in facts.items() if found.rows and len(shapes[name]) <= 2}
    specs = []
    for value in view.inputs:
        name, shape, found = value.name, tuple(shapes[value.name]), facts[value.name]
        role = _role(value, shape, found, ids, facts, shapes)
        spec = InputSpec(name, dtypes[name], shape, role, seen=seen.get(name))
        if spec.role in ("attention_mask", "decoder_attention_mask", "mask"):
            spec = _mask(spec, found.hiding)
        elif found.ranges:
            spec = _bounded(spec, found.ranges)
        elif len(shape) <= 1 and spec.seen:
            spec = _like_a_size(spec, examples, shapes)
        specs.append(spec)
    return tuple(specs)


@dataclass(frozen=True)
class _Facts:
    """ranges: that the graph sets for values. hiding: what it is as a mask. rows: of the smallest table."""

    ranges: tuple[Range, ...] = ()
    hiding: Hiding | None = None
    rows: int = 0


def _extremes(example: np.ndarray) -> tuple[int, int] | None:
    if not example.size or example.dtype.kind not in "iu":
        return None
    return int(example.min()), int(example.max())


def _facts(view: GraphView, value: GraphValue, shape: Shape, example: np.ndarray | None) -> _Facts:
    integral = value.dtype is not None and "int" in value.dtype
    found = tuple(ranges(value)) if integral else ()
    tables = [int(one.size) for one in found if one.table]
    return _Facts(found, None if found else _as_mask(view, value, example), min(tables, default=0))


def _as_mask(view: GraphView, value: GraphValue, example: np.ndarray | None) -> Hiding | None:
    """How an input hides, as far as its example agrees: flags are 0 and 1, and a bias that is added to scores
    is no mask where it hides nothing."""
    floats = value.dtype is None or "float" in value.dtype
    flags = example is not None and bool(np.isin(example, (0, 1)).all())
    if not value.shape or (example is not None and not floats and not flags) or (floats and _layered(value)):
        return None
    found = hiding(view, value, zeros=not floats or flags or (example is None and "mask" in value.name))
    if found is not None and found.hidden < 0 and example is not None:
        return found if example.min() <= HIDDEN or not example.any() else None
    return found


def _layered(value: GraphValue) -> bool:
    """Whether a layer with weights reads the input itself: hidden states, pixels and sounds are no masks."""
    layers = ("conv", "linear", "layer_norm", "rms_norm", "matmul")
    return any(use.reader.op.startswith(layers) for use in uses(value))


def _role(
    value: GraphValue,
    shape: Shape,
    found: _Facts,
    ids: Mapping[str, int],
    facts: Mapping[str, _Facts],
    shapes: Mapping[str, Shape],
) -> Role:
    name = value.name
    if name in ids or (not value.users and ("token_type" in name or "position_ids" in name)):
        return _ids_role(name, ids)
    if found.rows:
        return "other"
    if found.hiding is not None or (not found.ranges and _called_mask(value)):
        return _mask_role(name, shape, found.hiding, ids, facts, shapes)
    if "position_ids" in name and value.dtype is not None and "int" in value.dtype and len(shape) <= 2:
        return "position_ids"  # turned by, as rotary ones are, and looked up nowhere
    if value.dtype is None or "float" in value.dtype:
        return _float_role(value, len(shape))
    return "other"


def _called_mask(value: GraphValue) -> bool:
    return "mask" in value.name and len(value.shape or ()) == 2


def _mask_role(
    name: str,
    shape: Shape,
    how: Hiding | None,
    ids: Mapping[str, int],
    facts: Mapping[str, _Facts],
    shapes: Mapping[str, Shape],
) -> Role:
    """A mask of tokens is (batch, length): of the shape of some ids or, without such a one, over keys."""
    batch = next((shapes[each][:1] for each in (*ids, *shapes) if shapes[each]), ())
    if len(shape) != 2 or shape[:1] != batch:
        return "mask"
    like = [each for each in ids if shapes[each] == shape]
    if not like and ids:
        others = (
            each for each, fact in facts.items() if fact.hiding and each != name and len(shapes[each]) == 2
        )
        tokens = {shapes[each] for each in ids}
        told = (
            how.scores if how is not None else "attention_mask" in name
        )  # over a cache, it is longer than ids
        if not told or any(shapes[each] in tokens for each in others):
            return "mask"
    decoder = name.startswith("decoder") or bool(like and all(each.startswith("decoder") for each in like))
    return "decoder_attention_mask" if decoder else "attention_mask"


def _ids_role(name: str, ids: Mapping[str, int]) -> Role:
    if "position" in name:
        return "position_ids"
    if "token_type" in name or "segment" in name:
        return "token_type_ids"
    if name in ids and ids[name] <= _SMALL < max(ids.values()):
        return "token_type_ids"
    return "decoder_token_ids" if name.startswith("decoder") else "token_ids"


def _float_role(value: GraphValue, rank: int) -> Role:
    operators = {use.reader.op for use in uses(value)}
    if rank == 4 and "conv2d" in operators:
        return "pixel_values"
    if rank == 3:
        return "audio_features" if "conv1d" in operators else "hidden"
    return "other"


def _mask(spec: InputSpec, how: Hiding | None) -> InputSpec:
    if how is None:
        return replace(spec, hidden=float(any(word in spec.name for word in _HIDES)))
    return replace(spec, hidden=how.hidden, low=0 if spec.role != "mask" or how.empty else 1)


def _bounded(spec: InputSpec, found: tuple[Range, ...]) -> InputSpec:
    """The spec with the tightest bounds; what an example shows is allowed, whatever was concluded."""
    hard = [one for one in found if one.table]
    soft = [one for one in found if not one.table]
    if hard:
        low = max(one.low for one in hard)
        high = min(int(one.size) + one.reach for one in hard)
        if spec.seen:
            low, high = min(low, spec.seen[0]), max(high, spec.seen[1] + 1)
        return replace(spec, low=low, high=high)
    one = min(soft, key=lambda one: (not one.indexes, isinstance(one.size, str), one.reach))
    low = max(each.low for each in soft)
    if spec.seen:
        low = min(low, spec.seen[0])
    indexes = any(each.indexes for each in soft)
    return replace(spec, low=low, follows=one.size, reach=one.reach, indexes=indexes)


def _like_a_size(
    spec: InputSpec,
    examples: Mapping[str, np.ndarray],
    shapes: Mapping[str, Shape],
) -> InputSpec:
    """An example of one number a row whose largest is a size, or one less, follows that size."""
    assert spec.seen is not None
    low, high = spec.seen
    sizes = {
        dim: size
        for name, other in examples.items()
        for dim, size in zip(shapes.get(name, ()), other.shape, strict=False)
        if isinstance(dim, str) and dim not in spec.shape
    }
    for reach in (1, 0):
        for dim, size in sizes.items():
            if high == size - 1 + reach and low >= reach and size > 2:
                return replace(spec, low=reach, follows=dim, reach=reach)
    return spec
