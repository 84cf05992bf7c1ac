"""The space that a search looks in: what the registry declares, for one program, narrowed by a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...backends.base import Engine
from ...ir.errors import PipelineError
from ...ir.program import Program
from ...passes.manager.contract import Context, Pass
from ...passes.manager.pipeline import Pipeline
from ...passes.manager.registry import resolve
from ...passes.manager.text import checked
from ...passes.manager.varying import Each, Range, Value
from ..build import presets
from .slots import FX, NONE, ONNX, RUNS_ON, SLOTS, WITH

RUNTIME = "runtime"
Choices = Mapping[str, Value]


@dataclass(frozen=True)
class Space:
    """dimensions: what is chosen, and from what: a slot's pass, "pass.option", "pass.option.3" for an entry
    of one that is a tuple, the runtime. start: the dialect of the program.
    """

    dimensions: Mapping[str, Range]
    start: str

    def pipeline(self, choices: Choices) -> Pipeline:
        """The candidate of these choices; dimensions that it makes no use of don't matter.

        Raises:
            PipelineError: a contract forbids it.
        """
        runtime: Engine = "tvm" if choices[RUNTIME] == "tvm" else "onnxruntime"
        passes: list[Pass] = []
        for slot in FX if self.start == "fx" else ():
            lossy = any(name.source == "fx" for name in passes)
            if slot != "recovery" or lossy:  # else the model would learn what it knows
                passes += self._taken(slot, choices, runtime)
            if slot == "attention" and passes and passes[-1].name in FX[slot] and runtime == "onnxruntime":
                passes += Pipeline.parse("block-attention").passes
        rounding = [one for slot in ONNX for one in self._taken(slot, choices, runtime)]
        exact = presets.around(runtime, bool(rounding))
        passes += Pipeline.parse(",".join(exact if self.start == "fx" else exact[1:])).passes
        whole = Pipeline([*passes, *rounding])
        whole.leads_to("fx" if self.start == "fx" else "onnx")
        return whole

    def used(self, choices: Choices) -> dict[str, Value]:
        """The choices that its pipeline depends on."""
        taken = {choices[slot] for slot in SLOTS if slot in choices}
        return {
            name: value
            for name, value in choices.items()
            if "." not in name or name.partition(".")[0] in taken
        }

    def values(self, dimension: str) -> tuple[Value, ...]:
        """Those of a dimension that has no bounds; none where the space lacks it."""
        known = self.dimensions.get(dimension, ())
        return known if isinstance(known, tuple) else ()

    def _taken(self, slot: str, choices: Choices, runtime: Engine) -> list[Pass]:
        """The pass that is chosen for a slot, if any."""
        name = str(choices.get(slot, NONE))
        if name == NONE:
            return []
        if runtime not in RUNS_ON.get(name, (runtime,)):
            raise PipelineError(f"the pass '{name}' is of no use on {runtime}")
        options: dict[str, Any] = {}
        for dimension in self.dimensions:
            owner, _, option = dimension.partition(".")
            if owner != name:
                continue
            option, _, entry = option.partition(".")
            if entry:
                options[option] = (*options.get(option, ()), choices[dimension])
            else:
                options[option] = choices[dimension]
        return [checked(resolve(name), {**options, **WITH.get((name, runtime), {})})]

    def to_json(self) -> dict[str, Any]:
        """As a --space file holds it."""
        return {
            name: list(one) if isinstance(one, tuple) else {
                "low": one.low, "high": one.high, "step": one.step, "log": one.log
            }
            for name, one in self.dimensions.items()
        }  # fmt: skip


def space(program: Program, runtimes: Sequence[Engine], context: Context) -> Space:
    """What may be tried of a program.

    Args:
        runtimes: that candidates are built for.
        context: what passes will get; those that need more are left out.
    """
    dimensions: dict[str, Range] = {}
    slots = SLOTS if program.dialect == "fx" else ONNX
    for slot, names in slots.items():
        options = {name: found for name in names if (found := _options(name, program, runtimes, context))}
        if options:
            dimensions[slot] = (NONE, *options)
            for found in options.values():
                dimensions.update(found)
    dimensions[RUNTIME] = tuple(runtimes)
    return Space(dimensions, program.dialect)


def _options(name: str, program: Program, runtimes: Sequence[Engine], context: Context) -> dict[str, Range]:
    """The dimensions of a pass; none where it can't be tried."""
    if not set(runtimes) & set(RUNS_ON.get(name, runtimes)):
        return {}
    pass_type = resolve(name)
    found: dict[str, Range] = {}
    for option, one in pass_type.varying(program).items():
        if isinstance(one, Each):
            found |= {f"{name}.{option}.{entry}": row for entry, row in enumerate(one.ranges)}
        else:
            found[f"{name}.{option}"] = one
    if not found:
        return {}
    needs = _least(pass_type, found).requires()
    return found if all(getattr(context, need, None) for need in needs) else {}


def _least(pass_type: type[Pass], found: Mapping[str, Range]) -> Pass:
    """The pass at the beginning of all its ranges."""
    first = {dimension: one[0] if isinstance(one, tuple) else one.low for dimension, one in found.items()}
    name = pass_type.name
    options: dict[str, Any] = {}
    for dimension, value in first.items():
        option, _, entry = dimension.removeprefix(f"{name}.").partition(".")
        options[option] = (*options.get(option, ()), value) if entry else value
    return checked(pass_type, options)
