"""`optimize inspect MODEL`: what the graph is made of, and why the rest was not recognised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ...ir.blocks import recognise
from ...ir.blocks.base import Attention, Blocks, Experts
from ...ir.capture import capture
from ...ir.footprint import weight_bytes
from ...ir.inputs.extents import extents, told
from ...ir.program import Program
from ...ir.view import view

KINDS = ("attention", "feed_forward", "experts", "norm", "embedding", "residual")


@dataclass(frozen=True)
class Inspection:
    """A program and its blocks. parameters: numbers in its float constants. bytes: of all weights."""

    source: str
    program: Program
    blocks: Blocks
    parameters: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        program = self.program
        return {
            "source": self.source,
            "dialect": program.dialect,
            "task": program.task,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "inputs": [asdict(spec) for spec in program.inputs],
            "outputs": list(program.outputs),
            "axes": [asdict(each) for each in extents(program)],
            "notes": list(program.info.get("notes", ())),
            "symbols": {name: list(bounds) for name, bounds in program.symbols.items()},
            "blocks": {kind: len(getattr(self.blocks, kind)) for kind in KINDS},
            "attention": [attention_facts(each) for each in self.blocks.attention],
            "experts": [experts_facts(each) for each in self.blocks.experts],
            "bodies": _in_bodies(self.program),
            "stacks": [len(stack.layers) for stack in self.blocks.stack],
            "missed": [asdict(miss) for miss in self.blocks.missed],
        }


def inspect(model: str, model_type: str | None = None) -> Inspection:
    """Capture and recognise.

    Raises:
        CaptureError: the model cannot be captured.
    """
    program = capture(model, model_type=model_type)
    return Inspection(model, program, _blocks(program), _parameters(program), weight_bytes(program))


def _blocks(program: Program) -> Blocks:
    """The blocks of a program, those in bodies of If and Loop included."""
    if program.dialect != "onnx":
        return recognise(view(program))
    from ...ir.onnx.flattened import flattened
    from ...ir.onnx.graph import OnnxView

    return recognise(OnnxView(flattened(program.graph)))


def _in_bodies(program: Program) -> list[str]:
    """What of it stands in which body."""
    if program.dialect != "onnx":
        return []
    from ...ir.bodies.opened import bodies

    lines = []
    for body in bodies(program):
        counts = _blocks(body.program).summary()
        found = ", ".join(_counted(kind, count) for kind, count in counts.items() if count)
        lines.append(f"in {body}: {found or 'no block'}")
    return lines


def _parameters(program: Program) -> int:
    """Numbers in the weights: floating-point constants of rank 1 or more, each counted once."""
    total, seen = 0, set()
    for value in view(program).values:
        if value.op != "const" or not value.shape or value in seen or "float" not in str(value.dtype):
            continue
        seen.add(value)
        size = 1
        for dim in value.shape:
            size *= dim if isinstance(dim, int) else 1
        total += size
    return total


def attention_facts(attention: Attention) -> dict[str, Any]:
    """What tells one attention from another."""
    return {
        "node": attention.root.name,
        "heads": attention.heads,
        "kv_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "scale": attention.scale,
        "softcap": attention.softcap,
        "sinks": attention.sinks is not None,
        "mask": attention.mask_kind,
        "causal": attention.causal,
        "rotary": attention.rotary,
        "relative_bias": attention.relative_bias is not None,
        "cross": attention.cross,
    }


def experts_facts(mixture: Experts) -> dict[str, Any]:
    """What tells one mixture of experts from another."""
    return {
        "node": mixture.root.name,
        "experts": mixture.experts,
        "per_token": mixture.router.per_token,
        "width": mixture.width,
        "activation": mixture.activation,
        "gated": mixture.gated,
        "scoring": mixture.router.scoring,
        "normalised": mixture.router.normalised,
    }


def tables(found: Inspection) -> list[Any]:
    """Lines to print."""
    program, blocks = found.program, found.blocks
    lines = [
        f"{found.source}: {program.task}, {program.dialect} dialect, "
        f"{found.parameters / 1e6:,.1f} million parameters, {found.bytes / 1e6:,.1f} MB",
        *(f"  takes {spec.name} {spec.dtype} {list(spec.shape)} ({spec.role})" for spec in program.inputs),
        *(f"  gives {name}" for name in program.outputs),
        *(f"  {line}" for line in told(program)),
        *(f"  {note}" for note in program.info.get("notes", ())),
    ]
    missed = Counter(miss.kind for miss in blocks.missed)
    for kind in KINDS:
        count = len(getattr(blocks, kind))
        total = count + missed[kind]
        lines.append(f"{count} of {_counted(kind, total)}" if missed[kind] else _counted(kind, count))
        if kind == "attention":
            lines += [
                f"  {_described(facts, n)}" for facts, n in _grouped(map(attention_facts, blocks.attention))
            ]
        if kind == "experts":
            facts = map(experts_facts, blocks.experts)
            lines += [f"  {_mixed(each, n)}" for each, n in _grouped(facts)]
        lines += [f"  {miss.reason} (node {miss.node})" for miss in blocks.missed if miss.kind == kind]
    lines += [
        f"  {miss.kind}: {miss.reason} (node {miss.node})" for miss in blocks.missed if miss.kind not in KINDS
    ]
    lines += _in_bodies(program)
    lines += [f"stack of {len(stack.layers)} like layers" for stack in blocks.stack]
    return lines


def _counted(kind: str, count: int) -> str:
    if kind == "experts":
        return f"{count} mixture{'' if count == 1 else 's'} of experts"
    return f"{count} {kind.replace('_', '-')}{'' if count == 1 else 's'}"


def _grouped(each: Iterable[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """Facts shared by blocks that differ in nothing but their node, and how many there are."""
    counts: dict[tuple, int] = {}
    for facts in each:
        facts.pop("node")
        key = tuple(facts.items())
        counts[key] = counts.get(key, 0) + 1
    return [(dict(key), count) for key, count in counts.items()]


def _mixed(facts: dict[str, Any], count: int) -> str:
    gate = "gated " if facts["gated"] else ""
    scores = {"none": "scores"}.get(facts["scoring"], f"a {facts['scoring']} of scores")
    sums = ", made to add up to one" if facts["normalised"] else ""
    return (
        f"{count} with {facts['experts']} experts of {facts['width']} features "
        f"({gate}{facts['activation']}), {facts['per_token']} a token, weighed by {scores}{sums}"
    )


def _described(facts: dict[str, Any], count: int) -> str:
    heads = f"{facts['heads']} heads of {facts['head_dim']}"
    if facts["kv_heads"] != facts["heads"]:
        heads += f", {facts['kv_heads']} for keys and values"
    heads += f", scores capped at {facts['softcap']:g}" if facts["softcap"] else ""
    mask = {"none": "no mask", "add": "an additive mask", "bool": "a boolean mask"}[facts["mask"]]
    told = ("causal", "rotary", "relative_bias", "sinks", "cross")
    more = [name.replace("_", " ") for name in told if facts[name]]
    return f"{count} with {heads}, scale {facts['scale']:.4g}, {', '.join([mask, *more])}"
