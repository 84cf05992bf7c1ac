"""Which compiled functions run a call. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod

from ....ir.errors import InputError
from ...bundles.record import Function, Padding

CALL = 64  # tokens that take about as long as what a call costs whatever its size
SEARCHED = 512  # rows up to which the best cover is found; of more, the most go where a row costs least


class Choice:
    """Picks functions by size: those that cover a call's rows with least work. Safe to call from several
    threads."""

    def __init__(self, functions: Sequence[Function], padding: Padding) -> None:
        self.functions = tuple(functions)
        self.batch, self.length = padding.batch, padding.length
        self._remembered = lru_cache(4096)(self._found)

    def pieces(self, sizes: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
        """(number of the function, rows of the call that it runs) in the order of the rows.

        Without a batch symbol rows is 0: the call runs as it is.

        Args:
            sizes: of every symbol of the call.

        Raises:
            InputError: nothing that is compiled holds the call; names the sizes that are.
        """
        return self._remembered(tuple(sizes.items()))

    def _found(self, items: tuple[tuple[str, int], ...]) -> tuple[tuple[int, int], ...]:
        sizes = dict(items)
        fitting = [number for number, each in enumerate(self.functions) if self._holds(each.sizes, sizes)]
        if not fitting:
            raise InputError(self._refusal(sizes))
        if self.batch is None:
            return ((min(fitting, key=lambda number: self._work(number, sizes)), 0),)
        return self._cover(fitting, sizes, self.batch)

    def _holds(self, compiled: Mapping[str, int], sizes: Mapping[str, int]) -> bool:
        return all(
            size == compiled[symbol]
            or symbol == self.batch
            or (symbol == self.length and size < compiled[symbol])
            for symbol, size in sizes.items()
        )

    def _work(self, number: int, sizes: Mapping[str, int]) -> tuple[int, int]:
        """Tokens that a call of some sizes takes the time of, and the tokens of the function's own size: of
        functions that leave padding out, the smallest that holds a call is the best by little."""
        function = self.functions[number]
        padded = [symbol for symbol in (self.batch, self.length) if symbol is not None]
        own = prod(function.sizes[symbol] for symbol in padded)
        given = prod(sizes[symbol] for symbol in padded) if function.mask else own
        return given + CALL, own

    def _cover(
        self, fitting: Sequence[int], sizes: Mapping[str, int], batch: str
    ) -> tuple[tuple[int, int], ...]:
        """Functions that hold the call's rows together for the least work, those of most rows first."""
        held = {number: self.functions[number].sizes[batch] for number in fitting}
        work = {
            (number, count): self._work(number, {**sizes, batch: count})
            for number in fitting
            for count in range(1, min(held[number], sizes[batch]) + 1)
        }
        rows = rest = sizes[batch]
        cheapest = min(fitting, key=lambda n: work[n, min(held[n], rows)][0] / min(held[n], rows))
        chosen = [cheapest] * max((rows - SEARCHED) // held[cheapest], 0)
        rest -= len(chosen) * held[cheapest]
        best = [(0, 0, -1)]  # for each count of rows: work, and the last function
        for count in range(1, rest + 1):
            options = []
            for number in fitting:
                taken = min(held[number], count)
                tokens, own = work[number, taken]
                before = best[count - taken]
                options.append((before[0] + tokens, before[1] + own, number))
            best.append(min(options))
        while rest > 0:
            chosen.append(best[rest][2])
            rest -= held[chosen[-1]]
        pieces = []
        for number in sorted(chosen, key=lambda number: -held[number]):
            pieces.append((number, min(held[number], rows)))
            rows -= held[number]
        return tuple(pieces)

    def _refusal(self, sizes: Mapping[str, int]) -> str:
        symbols = [symbol for symbol in sizes if symbol != self.batch]
        have = dict.fromkeys(_told(each.sizes, symbols) for each in self.functions)
        why = "" if self.length else ", and padding would change what it computes"
        return (
            f"no compiled size holds a call of {_told(sizes, symbols)}{why}; there are: {', '.join(have)} "
            "(--shapes adds others to a build)"
        )


def _told(sizes: Mapping[str, int], symbols: Sequence[str]) -> str:
    return " x ".join(f"{symbol} {sizes[symbol]}" for symbol in symbols)
