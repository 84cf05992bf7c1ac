"""Two segments instead of one text, tried: a position that nobody found would show."""

from __future__ import annotations

from ....ir.agreement import scaled_distance
from ....ir.errors import PassError
from ....ir.execute import execute
from ....ir.inputs.memory import following
from ....ir.inputs.probe import feed
from ....ir.program import Program

_TOKENS, _EXACT = 11, 1e-3


def goes_on(before: Program, after: Program, symbol: str, remembers: int) -> None:
    """Runs a text whole and in two segments, of which all of the first is remembered.

    Args:
        before, after: without and with a memory. symbol: of the length. remembers: tokens, at least.

    Raises:
        PassError: outputs of the second segment are others than the whole text's.
    """
    length = min(_TOKENS, remembers + _TOKENS // 2, before.symbols[symbol][1])
    cut = min(remembers, length // 2)
    low, high = after.symbols[symbol]
    if not low <= cut <= length - cut <= high:
        return
    sizes = {s: min(max(2, least), most) for s, (least, most) in before.symbols.items()} | {symbol: length}
    text = feed(before, sizes)
    part = lambda start, end: {
        spec.name: text[spec.name][
            tuple(slice(start, end) if d == symbol else slice(None) for d in spec.shape)
        ]
        for spec in before.inputs
    }
    (whole,) = execute(before, [text])
    (first,) = execute(after, [part(0, cut)])
    (second,) = execute(after, [{**part(cut, length), **following(after.inputs, first)}])
    for name in before.outputs:
        if whole[name].shape[1:2] != (length,):
            continue  # one vector a text
        if scaled_distance(whole[name][:, cut:], second[name]) > _EXACT:
            raise PassError(
                f"'{name}' of a second segment is not what it is in the whole text: something beside keys "
                "and values goes from token to token, or places are counted where nobody saw it"
            )
