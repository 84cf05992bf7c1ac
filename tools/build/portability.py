"""On which instruction sets an int8 graph gives the right sums: predicted from its weights, shown on data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ...backends.bundles.manifest import MANIFEST, read_manifest
from ...backends.target import NAMES, named
from ...ir.capture import capture
from ...ir.program import Program
from ...passes.manager.contract import Feed
from ...passes.quantize.report.saturation import Saturation, saturations

FEEDS = 4  # bring enough tokens
EXACT, ON_DATA, WRONG = "right", "right on this data", "saturates"


@dataclass(frozen=True)
class Portability:
    """The int8 products of a bundle's graphs, each as it is without VNNI."""

    products: tuple[Saturation, ...]

    def verdict(self, vnni: bool, arch: str) -> str:
        """Of a machine: whether every sum is right whatever the input, was on the data, or was not."""
        if vnni or arch not in ("x86_64", "i686") or not any(product.possible for product in self.products):
            return EXACT
        return WRONG if any(product.seen for product in self.products) else ON_DATA

    @property
    def verdicts(self) -> dict[str, str]:
        """By the name of every target that can be named."""
        targets = [named(name) for name in NAMES]
        return {target.name: self.verdict(target.vnni, target.arch) for target in targets}

    @property
    def worst(self) -> Saturation | None:
        return max(self.products, key=lambda product: (product.error, product.possible), default=None)

    def told(self, target: str) -> str:
        """For the user of a bundle, once: what it means on the processor that it was built for, and on which
        others it would be wrong."""
        verdicts = self.verdicts
        others = {name: verdict for name, verdict in verdicts.items() if name != target}
        wrong = [name for name, verdict in others.items() if verdict == WRONG]
        doubtful = [name for name, verdict in others.items() if verdict == ON_DATA]
        here = {
            EXACT: f"Its int8 sums can't overflow on {target}, which it was built for",
            ON_DATA: f"Its int8 sums could overflow on {target}, which it was built for, and none did here",
            WRONG: f"Its int8 sums overflow on {target}, which it was built for, and its results are wrong",
        }[verdicts.get(target, EXACT)]
        if wrong:
            which = f"; on {', '.join(wrong)}, which lack VNNI, they do and results would be wrong"
        elif doubtful:
            which = (
                f"; on {', '.join(doubtful)}, which lack VNNI, they could, though none did on the texts tried"
            )
        else:
            return f"{here}."
        return f"{here}{which}: build for such a processor with --target {(wrong or doubtful)[0]}."

    def sentences(self) -> list[str]:
        """For people who ask (`bench --isa`): a line for each verdict."""
        if not self.products:
            return ["No int8 product in it: nothing can saturate, on any instruction set."]
        by_verdict: dict[str, list[str]] = {}
        for name, verdict in self.verdicts.items():
            by_verdict.setdefault(verdict, []).append(name)
        lines = [
            f"Int8 sums: {verdict} on {', '.join(names)}"
            + (f" ({self._why()})." if verdict != EXACT else ".")
            for verdict, names in by_verdict.items()
        ]
        if len(by_verdict) > 1:
            lines.append("Build for those with --target, which keeps weights to 7 bits.")
        return lines

    def _why(self) -> str:
        count = sum(product.possible > 0 for product in self.products)
        wrong = sum(product.seen > 0 for product in self.products)
        worst = self.worst
        assert worst is not None
        if not wrong:
            return f"{count} of {len(self.products)} products could overflow 16 bits, and none did"
        return (
            f"{wrong} of {len(self.products)} products overflow 16 bits; worst is {worst.layer}, "
            f"{worst.seen:.2%} of whose sums of two do, an error of {worst.error:.2%}"
        )

    def to_json(self) -> dict[str, Any]:
        return {"isa": self.verdicts, "products": [asdict(product) for product in self.products]}


def portability(graphs: Iterable[Program], feeds: Iterable[Feed], threads: int) -> Portability:
    """Of all the graphs of a bundle, on a few feeds; a product that several graphs have is listed once."""
    few = list(islice(feeds, FEEDS))
    found: dict[str, Saturation] = {}
    for graph in graphs:
        for product in saturations(graph, few, threads):
            found.setdefault(product.layer, product)
    return Portability(tuple(found.values()))


def graphs_of(model: str) -> list[Program]:
    """The onnx graphs of a bundle or of an ONNX file; none for a model that is still PyTorch's."""
    path = Path(model)
    if (path / MANIFEST).is_file():
        return [capture(str(path / file)) for file in read_manifest(path).graphs.values()]
    return [capture(model)] if path.suffix == ".onnx" else []


def summary(found: Mapping[str, Portability]) -> Any:
    """A row a model, a column an instruction set."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("int8 sums")
    for name in NAMES:
        table.add_column(name)
    for model, each in found.items():
        table.add_row(model, *each.verdicts.values())
    return table
