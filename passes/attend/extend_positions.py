"""extend-positions: longer texts than a model was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from ...ir.errors import PassError
from ...ir.program import Program
from ...ir.spec import IDS, UNBOUNDED
from ..manager.contract import Context, Lossy, Pass, Result

Bounds = tuple[int, int]
_HOW, _ROTARY = ("copy", "interpolate"), ("linear", "ntk")


@dataclass(frozen=True)
class ExtendPositions(Pass):
    """Let a model take longer texts than its table of positions has places for.

            y = embedding(positions(512, 384), arange(length))      length 1 to 512
        ->  y = embedding(positions(4096, 384), arange(length))     length 1 to 4096

            y = cos(places * frequencies)
        ->  y = cos(places * frequencies / 8)                       rotary=linear

    Every table that a text's places take rows of grows: learned positions, numbers of places, token types by
    place, masks of later keys. What is ahead of the first place (2 rows of RoBERTa's) stays. With copies,
    texts of old lengths give what they gave. Rotations turn more slowly. Relative positions in buckets take
    any length, and so does what has no positions: there the bound is raised, if there was one.

    Refused, by name: a grid of patches, a table that is computed, or that something else is computed from.

    length: of the longest text, in tokens.
    how: "copy", the places once more (Beltagy et al., 2020, arXiv:2004.05150, section 5), which changes
        nothing for old lengths, or "interpolate", linear between them, which needs training.
    rotary: "ntk", the slowest rotation slowed down, the fastest not (Peng et al., 2023, arXiv:2309.00071,
        section 3.1), or "linear", all of them (Chen et al., 2023, arXiv:2306.15595).
    pretrained: how long texts were in training, in tokens, where neither the graph nor its files say so.
    """

    name: ClassVar[str] = "extend-positions"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()
    widens: ClassVar = True

    length: int = 4096
    how: str = "copy"
    rotary: str = "ntk"
    pretrained: int | None = None

    def __post_init__(self) -> None:
        for option, known in (("how", _HOW), ("rotary", _ROTARY)):
            if getattr(self, option) not in known:
                raise ValueError(f"{option} is {getattr(self, option)!r}, and there is {' or '.join(known)}")
        for option in ("length", "pretrained"):
            if (given := getattr(self, option)) is not None and given < 1:
                raise ValueError(f"{option} is {given}, and 1 at least")

    def run(self, program: Program, context: Context) -> Result:

        from .positions.frequencies import scaled
        from .positions.longer import Longer
        from .positions.tables import short, tried

        symbols = _symbols(program)
        found = short(program, self.length)
        symbols |= {table.symbol: program.symbols[table.symbol] for table in found}
        if found and not context.allow(f"tables of {min(table.places for table in found)} places"):
            return Result(program, False)
        turned = self._turned(program, symbols, context)
        if not (found or turned or any(high < self.length for _, high in symbols.values())):
            return Result(program, False, {}, (f"texts of {self.length} tokens are taken already",))
        longer = Longer(self.length, self.how, partial(scaled, how=self.rotary))  # type: ignore[arg-type]
        lengthened = longer.lengthen(program, found)
        program = self._rebound(program, symbols)
        tried(program, symbols, self.length)
        told: dict[str, int | float | str] = {
            "tables": lengthened,
            "rotations": turned,
            "length": self.length,
        }
        return Result(program, True, told)

    def _turned(self, program: Program, symbols: Mapping[str, Bounds], context: Context) -> int:
        """How many constants turn more slowly now.

        Raises:
            PassError: nothing says how long texts were.
        """
        from ...ir.fx.graph import add_tensor
        from ...ir.inputs.probe import example
        from ..common.outputs import computed
        from .positions.frequencies import frequencies, scaled

        found = frequencies(program)
        if not found:
            return 0
        highs = [high for _, high in symbols.values() if high < UNBOUNDED]
        known = self.pretrained or max(highs, default=0) or program.info.get("max_length")
        if not known:
            raise PassError(
                "nothing says how long texts were when rotations were learned: give it, as pretrained=2048"
            )
        if self.length <= int(known):
            return 0
        values = computed(program, found, example(program))
        count = 0
        for node, value in zip(found, values, strict=True):
            if context.allow(f"frequencies {node.name}"):
                slower = scaled(value, self.length / int(known), self.rotary)  # type: ignore[arg-type]
                new = add_tensor(program.graph, f"attend.frequencies.{count}", slower, node.next)
                node.replace_all_uses_with(new)
                count += 1
        return count

    def _rebound(self, program: Program, symbols: Mapping[str, Bounds]) -> Program:
        """The program with what it says of lengths put right."""
        from ...ir.fx.graph import prune
        from ...ir.fx.rebound import rebound

        highs = {symbol: (low, max(high, self.length)) for symbol, (low, high) in symbols.items()}
        bounds = {**program.symbols, **highs}
        raised = [symbol for symbol in symbols if symbols[symbol] != highs[symbol]]
        info, sizes = dict(program.info), dict(program.info.get("sizes", {}))
        reasons = dict.fromkeys(raised, f"positions were extended to {self.length}")
        info["sizes"] = {**sizes, "reasons": {**sizes.get("reasons", {}), **reasons}}
        if info.get("max_length"):
            info["max_length"] = max(int(info["max_length"]), self.length)
        inputs = tuple(
            replace(spec, high=max(spec.high, self.length))
            if spec.role == "position_ids" and spec.high
            else spec
            for spec in program.inputs
        )
        prune(program.graph)
        rebound(program.graph, inputs, bounds)
        program.graph.recompile()
        return replace(program, symbols=bounds, info=info, inputs=inputs)


def _symbols(program: Program) -> dict[str, Bounds]:
    """Of the lengths of texts, with their bounds.

    Raises:
        PassError: there is none.
    """
    roles = (*IDS, "hidden", "position_ids")
    found = {
        dim: program.symbols[dim]
        for spec in program.inputs
        for dim in spec.shape[1:2]
        if spec.role in roles and isinstance(dim, str)
    }
    if not found:
        shapes = ", ".join(f"{spec.name} ({', '.join(map(str, spec.shape))})" for spec in program.inputs)
        raise PassError(
            f"no input has an axis of tokens that may be longer: {shapes}; a grid of patches is fixed"
        )
    return found
