"""Whether a text's vector depends on the call that it is in: the batch, the texts beside it, the padding.

Asked of the finished build, through what answers its calls: every graph by its own dispatch, at the session
options that a bundle is loaded with. The same calls tell how far it is from the captured program as it runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ...ir.agreement import scaled_distance, smallest_cosine
from ...ir.execute import execute
from ...ir.inputs.masks import masks_along
from ...ir.inputs.probe import probes
from ...ir.inputs.text import TextEncoder
from ...ir.program import Program
from ...passes.manager.contract import Exact, Feed
from ...passes.manager.verify import rounding
from .data import Row
from .scores import Outputs, Runner

TEXTS, BATCHES, PADDED = 32, (8, 32), 128
PROMISED = 0.9999  # cosine that a preset's build keeps
_SECONDS = 15.0  # for all calls, from which on fewer texts are asked about; two at least


@dataclass(frozen=True)
class Calls:
    """alone: calls of one row. ways: the same rows in other calls: (numbers of the rows, the call) each.
    what: what a row is."""

    alone: Sequence[Feed]
    ways: Mapping[str, Sequence[tuple[Sequence[int], Feed]]]
    what: str


@dataclass(frozen=True)
class Neighbours:
    """worst: the smallest cosine of a row alone and in other calls, by the way that they were made. own: that
    of the captured program, where `worst` is below `PROMISED`; empty otherwise. distance: of the build's
    outputs from the captured program's, largest |a - b| / max(1, |a|). rows, what: how many of what. limit:
    of the distance, for a build that promises equal outputs: wider where the program computes in 16 bits, and
    None where it rounds to integers: a last bit may carry an activation over half a step."""

    worst: Mapping[str, float]
    own: Mapping[str, float]
    distance: float
    rows: int
    what: str
    limit: float | None = Exact.tolerance

    @property
    def kept(self) -> bool:
        """Whether outputs depend on their neighbours no more than promised, or than the model's own."""
        least = min(self.worst.values(), default=1.0)
        return least >= min(PROMISED, min(self.own.values(), default=1.0))

    def sentence(self) -> str:
        """What was measured; empty where no row could be compared."""
        if not self.worst:
            return ""
        moved = 1 - min(self.worst.values())
        said = (
            f"The output for one of the {self.what} moves by at most {max(moved, 0):.1g} (1 - cosine) with "
            f"the call that it is in: measured on {self.rows} {self.what} alone, {_listed(list(self.worst))}."
        )
        if self.own:
            own = max(1 - min(self.own.values()), 0)
            said += f" The model's own moves by {own:.1g}."
        return said

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def neighbours(program: Program, calls: Calls, run: Runner, plain: Program, threads: int) -> Neighbours:
    """Ask a build about rows alone and in other calls.

    Args:
        program: any of the build's, for its inputs.
        run: what answers the bundle's calls.
        plain: the captured program in ONNX; runs as it stands, without optimisations of the runtime.
    """
    alone, worst = _cosines(program, calls, run)
    reference = execute(plain, calls.alone, threads)
    distance = max(
        (
            scaled_distance(_real(program, feed, expected[name]), _real(program, feed, found[name]))
            for feed, expected, found in zip(calls.alone, reference, alone, strict=True)
            for name in expected.keys() & found.keys()
            if expected[name].dtype == found[name].dtype and expected[name].shape == found[name].shape
        ),
        default=0.0,
    )
    own: Mapping[str, float] = {}
    if min(worst.values(), default=1.0) < PROMISED:
        _, own = _cosines(plain, calls, lambda feed: execute(plain, [feed], threads)[0])
    limit = _limit(plain, calls, threads) if distance > Exact.tolerance else Exact.tolerance
    return Neighbours(worst, own, distance, len(calls.alone), calls.what, limit)


def _limit(plain: Program, calls: Calls, threads: int) -> float | None:
    """How far a program's outputs may be from another's that promises the same."""
    if any(
        node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear", "Round") for node in plain.graph.graph
    ):
        return None
    return max(Exact.tolerance, *rounding(plain, calls.alone, threads).values())


def of_texts(program: Program, rows: Sequence[Row], pairs: bool, run: Runner) -> Calls:
    """Texts alone, in batches and padded, as far as the program takes such calls.

    Args:
        rows: texts to ask about, TEXTS of them where a call takes little time.
        pairs: whether a row's second text goes in with the first.
        run: times a call, which says how many texts there is time for.
    """
    content = program.tokenizer["tokenizer.json"]
    encoder = TextEncoder(content, program.inputs, program.info, program.symbols)
    texts = [row.text if isinstance(row.text, str) else " ".join(row.text) for row in rows[:TEXTS]]
    found = encoder.tokenize(texts, [row.pair or "" for row in rows[:TEXTS]] if pairs else None)
    ids = next(spec for spec in program.inputs if spec.role == "token_ids")
    least, most = _bounds(program, ids.shape[0])
    longest = max(map(len, found))
    room = min(PADDED, int(program.info.get("max_length") or PADDED))
    room = min(room, _bounds(program, ids.shape[1])[1] if len(ids.shape) > 1 else longest)
    padded = encoder.fixed is None and room > min(map(len, found))
    if least > 1:
        return Calls((), {}, "texts")
    longest_call = encoder.pad_together(found[:1], room if padded else None)
    run(longest_call)  # the first call makes the session
    began = time.perf_counter()
    run(longest_call)
    taken = time.perf_counter() - began
    found = found[: int(min(max(_SECONDS / 4 / taken, 2), len(found)))]
    ways: dict[str, list[tuple[Sequence[int], Feed]]] = {}
    for size in sorted({min(size, most, len(found)) for size in BATCHES} - {1}):
        starts = range(0, len(found) - len(found) % size, size)
        ways[f"in batches of {size}"] = [
            (range(start, start + size), encoder.pad_together(found[start : start + size]))
            for start in starts
        ]
    if padded:
        ways[f"padded to {room}"] = [
            ([number], encoder.pad_together([one], room))
            for number, one in enumerate(found)
            if len(one) < room
        ]
    return Calls([encoder.pad_together([one]) for one in found], ways, "texts")


def of_probes(program: Program, seed: int) -> Calls:
    """The rows of probe inputs, alone and in their batch; a memory, which the captured program lacks, is
    empty."""
    program = replace(program, inputs=tuple(spec for spec in program.inputs if not spec.given_by))
    alone: list[Feed] = []
    batches: list[tuple[Sequence[int], Feed]] = []
    first = {spec.shape[0] if spec.shape else 1 for spec in program.inputs}
    if len(first) == 1 and isinstance(symbol := next(iter(first)), str) and _bounds(program, symbol)[0] == 1:
        for feed in probes(program, seed):
            rows = len(next(iter(feed.values())))
            if rows > 1:
                batches.append((range(len(alone), len(alone) + rows), feed))
                alone += [{name: array[n : n + 1] for name, array in feed.items()} for n in range(rows)]
    return Calls(alone, {"in batches of 2 to 5": batches} if batches else {}, "probe inputs")


def _bounds(program: Program, size: int | str) -> tuple[int, int]:
    return program.symbols.get(size, (1, TEXTS)) if isinstance(size, str) else (size, size)


def _cosines(program: Program, calls: Calls, run: Runner) -> tuple[list[Outputs], dict[str, float]]:
    """The outputs of rows alone, and the smallest cosine to them, by way; ways without a row are left out."""
    alone = [run(feed) for feed in calls.alone]
    worst: dict[str, float] = {}
    for way, batches in calls.ways.items():
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        numbers: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for chosen, feed in batches:
            outputs = run(feed)
            for place, number in enumerate(chosen):
                for name, was in alone[number].items():
                    now = outputs[name]
                    if was.dtype.kind != "f" or was.ndim == 0 or now.ndim != was.ndim:
                        continue
                    if was.shape[0] != 1 or now.shape[0] != len(chosen):
                        continue
                    now = now[place : place + 1][tuple(slice(size) for size in was.shape)]
                    if now.shape == was.shape:
                        pair = (
                            _real(program, calls.alone[number], was),
                            _real(program, calls.alone[number], now),
                        )
                        single = was.ndim == 1 or was.shape[-1] == 1
                        (numbers.setdefault(name, []) if single else pairs).append(pair)
        for each in numbers.values():  # a number a row: all of them are one vector
            pairs.append(tuple(np.concatenate([side.reshape(-1) for side in sides])[None]
                               for sides in zip(*each, strict=True)))  # type: ignore[arg-type]  # fmt: skip
        finite = [pair for pair in pairs if np.isfinite(pair[0]).any() or np.isfinite(pair[1]).any()]
        if finite:
            worst[way] = min(smallest_cosine(*pair) for pair in finite)
    return alone, worst


def _real(program: Program, feed: Feed, output: np.ndarray) -> np.ndarray:
    """An output's rows at real tokens, where it has a row for each token."""
    masks = masks_along(program.inputs, feed, output.shape[:-1])
    return output[masks[0]] if masks else output


def _listed(ways: Sequence[str]) -> str:
    return ways[0] if len(ways) == 1 else ", ".join(ways[:-1]) + " and " + ways[-1]
