"""What watches a run from outside the passes: dump, time and statistics. Others follow the same protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from difflib import unified_diff
from pathlib import Path

from ...ir.program import Program
from .contract import Context, Pass, Step


class Instrument:
    """Told of a run's beginning and of every step; subclasses override what they need."""

    def begin(self, pipeline: str, program: Program, context: Context) -> None:
        """The pipeline, as text, is about to run on `program`."""

    def after(self, pass_: Pass, step: Step, before: Program, after: Program, context: Context) -> None:
        """A pass ran. `after` is what the run goes on with: `before` itself when the pass was undone."""


class Dump(Instrument):
    """Writes the program's text before the first pass and after each (00-input.txt, 01-fuse-qkv.txt, ...),
    and what each pass changed in it (01-fuse-qkv.diff, unified)."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.number, self.before = 0, ""

    def begin(self, pipeline: str, program: Program, context: Context) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.number, self.before = 0, ""
        self._write("input", program)

    def after(self, pass_: Pass, step: Step, before: Program, after: Program, context: Context) -> None:
        self.number += 1
        self._write(pass_.name, after)

    def _write(self, name: str, program: Program) -> None:
        from ...ir.text import text

        after, path = text(program), self.directory / f"{self.number:02}-{name}"
        path.with_suffix(".txt").write_text(after, encoding="utf-8")
        if self.number:
            was, is_ = (each.splitlines(keepends=True) for each in (self.before, after))
            changed = "".join(unified_diff(was, is_, "before", "after"))
            path.with_suffix(".diff").write_text(changed, encoding="utf-8")
        self.before = after


class Timing(Instrument):
    """Seconds spent in each pass and in checking it: `rows` is [(pass, run, check)]."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float]] = []

    def after(self, pass_: Pass, step: Step, before: Program, after: Program, context: Context) -> None:
        self.rows.append((step.text, step.seconds, step.check_seconds))

    def __str__(self) -> str:
        lines = [f"{run:9.3f} s  {check:9.3f} s  {text}" for text, run, check in self.rows]
        return "\n".join(["      run      check  pass", *lines])


class Statistics(Instrument):
    """What each pass counted, and how the number of each operator changed.

    rows: [(pass, what it counted, {operator: change})], operators under their dialect's own names.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[str, Mapping[str, int | float | str], dict[str, int]]] = []
        self._operators: Counter[str] = Counter()

    def begin(self, pipeline: str, program: Program, context: Context) -> None:
        self._operators = operators(program)

    def after(self, pass_: Pass, step: Step, before: Program, after: Program, context: Context) -> None:
        now = operators(after) if after is not before else self._operators
        changes = {name: now[name] - self._operators[name] for name in sorted({*now, *self._operators})}
        self._operators = now
        self.rows.append((step.text, step.statistics, {name: n for name, n in changes.items() if n}))

    def __str__(self) -> str:
        lines = []
        for text, statistics, changes in self.rows:
            parts = [
                *(f"{k} {v}" for k, v in statistics.items()),
                *(f"{k} {n:+d}" for k, n in changes.items()),
            ]
            lines.append(f"{text}: {', '.join(parts) or 'nothing'}")
        return "\n".join(lines)


def operators(program: Program) -> Counter[str]:
    """How often each operator occurs, under its dialect's own name."""
    if program.dialect == "onnx":
        return Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in program.graph.graph)
    return Counter(str(n.target) for n in program.graph.graph.nodes if n.op == "call_function")
