"""What `optimize passes` lists: read from the passes' source, so that nothing is imported to list them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec, resolve_name
from inspect import cleandoc
from pathlib import Path
from typing import Any

from ...ir.errors import PipelineError, did_you_mean
from ...passes.manager.registry import PASSES


@dataclass(frozen=True)
class Entry:
    """One pass: its docstring, options as written ("ratio: float = 0.25"), contract and dialects."""

    name: str
    doc: str
    options: tuple[str, ...]
    effect: str
    source: str
    target: str

    @property
    def summary(self) -> str:
        """The docstring's first sentence or line."""
        return self.doc.partition("\n")[0]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def entry(name: str) -> Entry:
    """The entry of a registered pass.

    Raises:
        PipelineError: there is no such pass.
    """
    if name not in PASSES:
        raise PipelineError(f"there is no pass '{name}'{did_you_mean(name, PASSES)}")
    module, _, class_name = PASSES[name].partition(":")
    settings: dict[str, str] = {}
    options: dict[str, str] = {}
    docs = []
    for body in reversed(_classes(name, module, class_name)):
        docs.append(cleandoc(ast.get_docstring(body) or ""))
        for line in body.body:
            if isinstance(line, ast.Assign):
                settings |= {ast.unparse(target): ast.unparse(line.value) for target in line.targets}
            elif isinstance(line, ast.AnnAssign) and "ClassVar" in ast.unparse(line.annotation):
                settings[ast.unparse(line.target)] = ast.unparse(line.value) if line.value else ""
            elif isinstance(line, ast.AnnAssign):
                # Named as pipelines name it: a field is from_ where Python keeps the word to itself.
                options[ast.unparse(line.target)] = ast.unparse(line).replace("_:", ":", 1)
    plain = {key: value.strip("'\"") for key, value in settings.items()}
    # What a class shares is told by its base, under a first line that is the base's own.
    doc = "\n\n".join([docs[-1], *(shared.partition("\n\n")[2] for shared in docs[:-1])])
    dialects = [plain.get(side, "None").replace("None", "any") for side in ("source", "target")]
    return Entry(name, doc, tuple(options.values()), settings.get("effect", ""), *dialects)


def _classes(name: str, module: str, class_name: str) -> list[ast.ClassDef]:
    """A pass's class and those it is built on, up to Pass itself, which has no options."""
    spec = find_spec(module, "graphwright.passes")
    if spec is None or spec.origin is None:
        raise PipelineError(f"the pass '{name}' is registered as {PASSES[name]}, which does not exist")
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    found = [body]
    package = resolve_name(module, "graphwright.passes").rpartition(".")[0]
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    for base in (ast.unparse(base) for base in body.bases if ast.unparse(base) != "Pass"):
        for source in imports:
            if any(alias.name == base for alias in source.names):
                found += _classes(name, resolve_name("." * source.level + str(source.module), package), base)
    return found


def table(entries: Sequence[Entry]) -> Any:
    """Every pass in a line: name, dialects, contract, what it does."""
    from rich.table import Table

    rows = Table("pass", "from", "to", "contract", "what it does", box=None, pad_edge=False)
    for each in entries:
        rows.add_row(each.name, each.source, each.target, each.effect, each.summary)
    return rows


def describe(each: Entry) -> str:
    """One pass in full."""
    options = "".join(f"\n  {option}" for option in each.options) or " none"
    return f"{each.name}: {each.source} -> {each.target}, {each.effect}\n\n{each.doc}\n\nOptions:{options}"
