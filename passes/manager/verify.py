"""What the manager checks after every pass: the graph, its interface, and its outputs on probe inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...ir.agreement import (
    difference,
    mismatch,
    moved_share,
    scaled_distance,
    smallest_cosine,
    unverified,
    vacuity,
)
from ...ir.errors import ContractError, ProgramError
from ...ir.execute import execute
from ...ir.inputs.masks import masks_along
from ...ir.inputs.probe import probes, shared
from ...ir.last_bits import jittered
from ...ir.onnx.execute import execute_onnx
from ...ir.onnx.runtime import reason
from ...ir.program import Program
from .contract import Bounded, Effect, Exact, Feed, Lossy

LENGTH = 1.5  # times that an output held by its cosine may grow or shrink by
ROUNDED = 0.1  # of the outputs' norm over all probes, where half a step apart is a step apart
ROUNDINGS = 4  # before and after are one rounding from the function each; as much again for other feeds
DOUBLED = 0.1  # of what doubling an output would move it by, which no rounding excuses
Outputs = list[dict[str, np.ndarray]]
ByOutput = Mapping[str, Sequence[np.ndarray]]


@dataclass
class Verifier:
    """Compares each program with the one before its pass, on the same probe inputs.

    Outputs of the last verified program are kept, so that each program runs once. One in training mode is
    compared in evaluation mode.

    make_probes: gives the probe inputs of a program for a seed.
    """

    seed: int = 0
    threads: int = 2
    make_probes: Callable[[Program, int], Sequence[Feed]] = probes
    _known: tuple[Program, Sequence[Feed], Outputs] | None = None

    def check(self, before: Program, after: Program, effect: Effect) -> str:
        """Raise when `after` (well formed) does not keep `effect`'s promise about `before`.

        Returns:
            What could not be verified, because outputs are NaN, constant or empty on every probe, in a
            sentence; empty where everything was, and where the effect promises nothing.

        Raises:
            ContractError: names the output, the probe, and how far it moved.
            ProgramError: `before` does not run on its own probe inputs.
        """
        feeds, reference = self._reference(before, after)
        rounds = False
        if isinstance(effect, Exact) and _rounds_elsewhere(before, after):
            rounds = True  # shapes, types and NaN probe by probe, numbers over all of them
            effect = Bounded("cosine", -1.0, effect.where)
        try:
            found = execute(_in_evaluation(after), feeds, self.threads)
        except Exception as error:
            raise ContractError(f"the graph it left does not run: {reason(error)}") from error
        compared: dict[str, list[np.ndarray]] = {name: [] for name in before.outputs}
        kept: dict[str, list[np.ndarray]] = {name: [] for name in before.outputs}
        rounded: dict[str, float] | None = None  # measured where it is asked for
        last = False  # whether it is that of last bits
        for number, (feed, expected, actual) in enumerate(zip(feeds, reference, found, strict=True), 1):
            for name in before.outputs:
                where = f"output '{name}' on probe {number} of {len(feeds)} ({describe(feed)})"
                included = compared_at(after, feed, expected[name], effect)
                try:
                    compare(expected[name], actual[name], effect, included, where)
                except ContractError:
                    if not isinstance(effect, Exact):
                        raise
                    if rounded is None:
                        rounded, last = slack(before, after, feeds, self.threads)
                    wider = replace(effect, tolerance=max(effect.tolerance, rounded.get(name, 0.0)))
                    compare(expected[name], actual[name], wider, included, where)
                whole = ... if included is None else included
                compared[name].append(expected[name][whole])
                kept[name].append(actual[name][whole])
        if rounds:
            _share(compared, kept, ROUNDED)
        elif last and isinstance(effect, Exact):
            _share(compared, kept, effect.tolerance)  # what one number may, all may not
        # A memory that the program gained was left empty, and is filled from now on.
        self._known = (after, feeds, found) if before.outputs == after.outputs else None
        if isinstance(effect, Lossy):
            for name, arrays in compared.items():
                left = vacuity([each[name] for each in found])
                if left and not vacuity(arrays):
                    raise ContractError(f"output '{name}' became {left} on every probe")
            return ""
        return unverified({name: vacuity(arrays) for name, arrays in compared.items()})

    def _reference(self, before: Program, after: Program) -> tuple[Sequence[Feed], Outputs]:
        if self._known is not None and self._known[0] is before and before.inputs == after.inputs:
            return self._known[1], self._known[2]
        feeds = self.make_probes(shared(after, before), self.seed)  # a pass may let it take more
        if gained := {spec.name for spec in after.inputs} - {spec.name for spec in before.inputs}:
            feeds = [{name: x for name, x in feed.items() if name not in gained} for feed in feeds]
        program = _in_evaluation(before)
        try:
            return feeds, execute(program, feeds, self.threads)
        except Exception as error:
            failure, why = error, reason(error)
        if (before.inputs, before.symbols) != (after.inputs, after.symbols):
            try:
                execute(program, self.make_probes(before, self.seed), self.threads)
            except Exception as error:
                failure, why = error, reason(error)
            else:
                raise ContractError(f"the program before it does not take what it takes: {why}") from failure
        raise ProgramError(
            f"the model does not run on inputs that it should take ({describe(feeds[0])}): {why}; give "
            "examples of what it takes, or repair it"
        ) from failure


def _share(expected: ByOutput, actual: ByOutput, limit: float) -> None:
    for name in expected:
        moved = moved_share(expected[name], actual[name])
        if moved > limit:
            raise ContractError(f"output '{name}' moved by {moved:.2%} of its norm (limit {limit:.2%})")


def slack(
    before: Program, after: Program, feeds: Sequence[Feed], threads: int = 2
) -> tuple[dict[str, float], bool]:
    """What rounding excuses at each output: that to 16 bits, or where there are none, to float32; and whether
    it is the latter.

    A deep model may carry the last bit of a float far (SmolLM2's logits: by 0.0004 where most are about 13).
    """
    narrow = rounding(before if before.dialect == "onnx" else after, feeds, threads)
    if any(narrow.values()):
        return narrow, False
    program = _in_evaluation(before)
    return _limits(*(execute(each, feeds, threads) for each in (program, jittered(program)))), True


def rounding(program: Program, feeds: Sequence[Feed], threads: int = 2) -> dict[str, float]:
    """What each output of an ONNX program in 16 bits may move by; 0 for a program without.

    Its graph in float32, with the rounding and without, says how far that takes each output.
    """
    from ...ir.onnx.precision import widened

    graphs = [widened(program.graph, each) for each in (False, True)] if program.dialect == "onnx" else [None]
    if None in graphs:
        return dict.fromkeys(program.outputs, 0.0)
    return _limits(*(execute_onnx(graph, program.outputs, feeds, threads) for graph in graphs))


def _limits(exact: Outputs, rounded: Outputs) -> dict[str, float]:
    """ROUNDINGS times what rounding moves each output by, at most DOUBLED of what doubling it would."""
    limits = {}
    for name in exact[0]:
        moved = max(_apart(e[name], r[name]) for e, r in zip(exact, rounded, strict=True))
        limits[name] = min(ROUNDINGS * moved, DOUBLED * max(_apart(e[name], 2 * e[name]) for e in exact))
    return limits


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """The scaled distance where both are finite: 16 bits overflow where 32 do not."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    return scaled_distance(a[both], b[both])


def _in_evaluation(program: Program) -> Program:
    """The program in evaluation mode: in training, what dropout leaves differs from run to run."""
    if program.dialect == "onnx":
        return program
    from ...ir.evaluated import evaluated

    return evaluated(program)


def _rounds_elsewhere(before: Program, after: Program) -> bool:
    """Whether another library computes `after`, and it rounds to integers. That is not continuous: a
    difference in an activation's last bit may carry it over half a step, and a row of small numbers far. Few
    rows are hit, where a wrong step or integer shows in all."""
    if before.dialect == after.dialect or before.dialect == "onnx":
        return False
    return any("fake_quantize" in str(node.target) for node in before.graph.graph.nodes)


def same_interface(before: Program, after: Program) -> None:
    """Raise unless inputs and outputs were kept; an input's symbol may become a number, and behind the others
    a program may gain a memory: inputs that are empty where nobody gives them, each with its output.

    Raises:
        ContractError: names the input or output that changed.
    """
    had, has = ([spec.name for spec in program.inputs] for program in (before, after))
    gained = [spec for spec in after.inputs[len(had) :] if spec.given_by]
    outputs = (*before.outputs, *(spec.given_by for spec in gained))
    if after.outputs != outputs:
        raise ContractError(f"the outputs became {_names(after.outputs)} instead of {_names(outputs)}")
    if has != [*had, *(spec.name for spec in gained)]:
        raise ContractError(f"the inputs became {_names(has)} instead of {_names(had)}")
    for old, new in zip(before.inputs, after.inputs, strict=False):
        narrowed = len(old.shape) == len(new.shape) and all(
            a == b or (isinstance(a, str) and isinstance(b, int))
            for a, b in zip(old.shape, new.shape, strict=True)
        )
        if old.dtype != new.dtype or not narrowed:
            raise ContractError(
                f"the input '{old.name}' became {new.dtype}{list(new.shape)} instead of "
                f"{old.dtype}{list(old.shape)}"
            )


def compare(
    expected: np.ndarray, actual: np.ndarray, effect: Effect, included: np.ndarray | None, where: str
) -> None:
    """Raise unless `actual` is within the effect's contract of `expected`.

    Args:
        included: boolean, over the leading axes of the outputs: what is compared; None for everything.
        where: names the output and the probe, for the message.

    Raises:
        ContractError: dtype, shape, NaN or infinities on one side alone, or values out of the contract.
    """
    if actual.dtype != expected.dtype:
        raise ContractError(f"{where} became {actual.dtype} instead of {expected.dtype}")
    if actual.ndim != expected.ndim or (not isinstance(effect, Lossy) and actual.shape != expected.shape):
        raise ContractError(f"{where} has shape {actual.shape} instead of {expected.shape}")
    if isinstance(effect, Lossy):
        new = np.isnan(actual.astype(np.float64)).any() and not np.isnan(expected.astype(np.float64)).any()
        if new:
            raise ContractError(f"{where} has NaN where there was none")
        return
    if included is not None:
        expected, actual = expected[included], actual[included]
    if isinstance(effect, Exact):
        if found := difference(expected, actual, effect.tolerance):
            raise ContractError(f"{where} {found}")
        return
    a, b = expected.astype(np.float64), actual.astype(np.float64)  # integers may follow what may move
    if found := mismatch(a, b):
        raise ContractError(f"{where} {found}")
    cosine = smallest_cosine(a, b)
    if cosine < effect.limit:
        raise ContractError(f"{where} has cosine {cosine:.6f} (limit {effect.limit:g})")
    finite = np.isfinite(a)
    length, became = (float(np.linalg.norm(each[finite])) for each in (a, b))
    if not length / LENGTH <= became <= length * LENGTH:
        raise ContractError(f"{where} has {became / length:.3g} times its length, which no cosine shows")


def describe(feed: Feed) -> str:
    """The shapes of a feed, and how much of each mask is padding."""
    parts = []
    for name, array in feed.items():
        padding = int((array == 0).sum()) if "mask" in name else 0
        parts.append(
            f"{name} {'x'.join(map(str, array.shape))}" + (f" with {padding} masked" if padding else "")
        )
    return ", ".join(parts)


def compared_at(program: Program, feed: Feed, output: np.ndarray, effect: Effect) -> np.ndarray | None:
    """Where the mask is 1, for an effect that leaves padding out and an output laid out like the mask.

    An encoder-decoder gives outputs of both lengths, which probes make different.
    """
    if getattr(effect, "where", "everywhere") != "mask":
        return None
    return next(iter(masks_along(program.inputs, feed, output.shape)), None)


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
