"""The graph before and after each pass, as a page can show it: nodes, what they read, their blocks."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...ir.blocks import recognise
from ...ir.program import Program
from ...ir.text import listed
from ...ir.values import GraphValue, GraphView
from ...ir.view import view
from ...passes.manager.contract import Context, Pass, Step
from ...passes.manager.instruments import Instrument
from ..anatomy import Place, places

MOST = 100_000  # lines, of all stages together: about 10 MB


class Stages(Instrument):
    """Keeps a line for each node of each stage; what a pass left as it was is kept once.

    A node is [name, operator, its line of `ir.text`, [names that it reads], block], where a block is "" or a
    kind and a number: "attention 0". Fused and quantized blocks are recognised no longer, so a node stays in
    the block that a node of its name was in, and a new one is in that of what reads it, or of what it reads.

    blocks: the block of each name, over all stages of the last dialect.
    """

    def __init__(self) -> None:
        self.blocks: dict[str, str] = {}
        self._known: dict[tuple[Any, ...], int] = {}
        self._stages: list[dict[str, Any]] = []
        self._numbers = Counter[str]()  # of blocks of a kind, so far
        self._dialect = ""
        self._cut = False

    def begin(self, pipeline: str, program: Program, context: Context) -> None:
        self.add("to-onnx" if self._stages else "as captured", program)

    def after(self, pass_: Pass, step: Step, before: Program, after: Program, context: Context) -> None:
        if step.status == "applied":
            self.add(step.text, after)

    def add(self, title: str, program: Program) -> None:
        """One more stage; none once they are too many for a page."""
        graph = view(program)
        if program.dialect != self._dialect:  # names mean something else there
            self.blocks, self._numbers, self._dialect = {}, Counter(), program.dialect
        self._place(graph)
        nodes = []
        for value, line in listed(graph):
            reads = tuple(v.name for v in value.inputs if v is not None and v.op != "const")
            node = (value.name, value.op, line, reads, self.blocks[value.name])
            nodes.append(self._known.setdefault(node, len(self._known)))
        lines = len(self._known) + sum(len(stage["nodes"]) for stage in self._stages)
        self._cut = self._cut or lines > MOST
        if not self._cut:
            self._stages.append({"pass": title, "nodes": nodes})

    def _place(self, graph: GraphView) -> None:
        """Puts every value of a graph into a block, or into none."""
        values = [value for value in graph if value.op != "const"]
        found = self._recognised(graph)
        new = [value for value in values if value.name not in found and value.name not in self.blocks]
        found = {**self.blocks, **found}
        readers: dict[str, list[GraphValue]] = {}
        for value in values:
            for read in value.inputs:
                if read is not None:
                    readers.setdefault(read.name, []).append(value)
        first = not self.blocks  # nothing was fused yet, so what is in no block is in none
        for value in reversed([] if first else new):
            near = (found.get(reader.name, "") for reader in readers.get(value.name, ()))
            found[value.name] = next(filter(None, near), "")
        for value in [] if first else new:
            near = (found.get(read.name, "") for read in value.inputs if read is not None)
            found[value.name] = found[value.name] or next(filter(None, near), "")
        self.blocks = {**dict.fromkeys((value.name for value in values), ""), **found}

    def _recognised(self, graph: GraphView) -> dict[str, str]:
        """Name -> block, numbered as before where a block was there before."""
        members: dict[Place, list[str]] = {}
        for value, place in places(graph, recognise(graph)).items():
            members.setdefault(place, []).append(value.name)
        found: dict[str, str] = {}
        for (kind, _), names in members.items():
            before = (self.blocks.get(name, "") for name in names)
            known = next((block for block in before if block.partition(" ")[0] == kind), "")
            if not known or known in found.values():
                known = f"{kind} {self._numbers[kind]}"
                self._numbers[kind] += 1
            found |= dict.fromkeys(names, known)
        return found

    def to_json(self) -> dict[str, Any] | None:
        """nodes: each that any stage has. stages: in order, {"pass", "nodes": numbers of nodes}. None where
        nothing changed, or there would be more of it than a page can hold."""
        if self._cut or len(self._stages) < 2:
            return None
        return {"nodes": list(self._known), "stages": self._stages}
