"""A bundle's variants for instruction sets, and which of them this processor runs. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import processor
from ..typed import many, text


@dataclass(frozen=True)
class IsaVariant:
    """A whole build in a bundle of several. target: the level that it was built for. arch: "x86_64" or
    "aarch64". needs: instruction sets that the processor must have, as `processor.plain` spells them."""

    target: str
    arch: str
    needs: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> IsaVariant:
        """Raises ValueError, KeyError or TypeError for anything that `to_json` would not have written."""
        return IsaVariant(text(record["target"]), text(record["arch"]), many(text, record["needs"]))


def chosen(variants: Sequence[IsaVariant]) -> int | None:
    """The number of the variant that runs here; None where none does.

    They stand best first. Where the system does not tell what the processor has, it is the last of its
    architecture, which needs least.
    """
    here = processor.architecture()
    has = processor.usable(here)
    mine = [number for number, each in enumerate(variants) if each.arch == here]
    fitting = [number for number in mine if not processor.lacks(variants[number].needs, has)]
    if not fitting:
        return None
    return fitting[0] if has else fitting[-1]


def refusal(folder: Path, variants: Sequence[IsaVariant]) -> str:
    """Why none of them runs here: what each needs, and which of all that this processor has."""
    here = processor.architecture()
    asked = {name for each in variants if each.arch == here for name in each.needs}
    has = ", ".join(sorted(asked & processor.usable(here))) or "none of these"
    needs = "; ".join(
        f"{each.target} needs {each.arch} with {', '.join(each.needs) or 'nothing more'}" for each in variants
    )
    return (
        f"no variant in {folder} runs on this processor, {here} with {has}: {needs}; "
        "add a target that it can run to the list and build again"
    )
