"""What a bundle's manifest says about compiled functions. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...ir.spec import InputSpec
from ..typed import dtype, many, maybe, table, text, whole

MODULE, WEIGHTS = "model.so", "model.weights"


@dataclass(frozen=True)
class Place:
    """A tensor in the weights file. offset: bytes from its start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Function:
    """One compiled size. sizes: of every symbol. name: in the module. weights: what it takes behind the
    program's inputs, in order. mask: the input whose zeros it leaves out: it then takes, before the weights,
    the kept tokens and where each sequence begins among them (kept.py)."""

    sizes: Mapping[str, int]
    name: str
    weights: tuple[str, ...]
    mask: str | None = None


@dataclass(frozen=True)
class Padding:
    """How a call of another size fits a compiled one.

    batch: the symbol along which rows may be added, and a call be split. length: the symbol along which
    masked tokens may be added. None where that would change a result: only compiled sizes run then.
    axes: for each output, the symbol that each of its axes has the size of, None for a constant.
    token: the id that padding holds.
    """

    batch: str | None
    length: str | None
    axes: tuple[tuple[str | None, ...], ...]
    token: int = 0


@dataclass(frozen=True)
class Compiled:
    """Functions over one weights file.

    arch: "x86_64" or "aarch64". needs: instruction sets that the processor must have. module: the file that
    holds the functions.
    """

    arch: str
    needs: tuple[str, ...]
    places: tuple[Place, ...]
    functions: tuple[Function, ...]
    padding: Padding
    module: str = MODULE

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def check(self, inputs: Sequence[InputSpec], outputs: Sequence[str]) -> None:
        """Raises ValueError where these are not the inputs and outputs that the functions have."""
        symbols = {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)}
        for function in self.functions:
            if function.mask is not None and function.mask not in {spec.name for spec in inputs}:
                raise ValueError(f"{function.name} takes a mask that is not listed")
            if function.sizes.keys() != symbols:
                raise ValueError(f"{function.name} was not compiled for the inputs listed")
        for spec in inputs:
            looked_up = spec.role in ("token_ids", "decoder_token_ids")
            if looked_up and spec.high and not spec.low <= self.padding.token < spec.high:
                raise ValueError(f"{spec.name} has no id {self.padding.token}, which padding would hold")
        padded = {self.padding.batch, self.padding.length} - {None}
        if not padded <= symbols or not {axis for row in self.padding.axes for axis in row} <= symbols | {
            None
        }:
            raise ValueError("it pads along what no input has")
        if len(self.padding.axes) != len(outputs):
            raise ValueError("the outputs listed are not those of the functions")

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Compiled:
        """Raises ValueError, KeyError or TypeError for anything that `to_json` would not have written."""
        places = tuple(
            Place(text(each["name"]), dtype(each["dtype"]), many(whole, each["shape"]), whole(each["offset"]))
            for each in record["places"]
        )
        functions = tuple(
            Function(
                {text(symbol): whole(count) for symbol, count in table(each["sizes"]).items()},
                text(each["name"]),
                many(text, each["weights"]),
                maybe(text, each["mask"]),
            )
            for each in record["functions"]
        )
        if not functions:
            raise ValueError("it has no compiled function")
        known = {place.name for place in places}
        for function in functions:
            if set(function.weights) - known:
                raise ValueError(f"{function.name} takes a weight that is not listed")
        found = record["padding"]
        axes = many(lambda row: many(lambda axis: maybe(text, axis), row), found["axes"])
        token = whole(found["token"], -1)
        padding = Padding(maybe(text, found["batch"]), maybe(text, found["length"]), axes, token)
        module = text(record.get("module", MODULE))
        return Compiled(text(record["arch"]), many(text, record["needs"]), places, functions, padding, module)
