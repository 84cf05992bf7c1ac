"""`optimize inspect BUNDLE`, where it has variants: what they are for, and which runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...backends.bundles.isa import refusal
from ...backends.bundles.manifest import Manifest, is_bundle, read_manifest
from ..reports.variants import variants


def manifest_of(model: str) -> Manifest | None:
    """That of a bundle with variants; None for any other model.

    Raises:
        BundleError: it is a bundle, and damaged.
    """
    bundle = is_bundle(model) and not Path(model, "config.json").exists()  # else a model with a file so named
    found = read_manifest(Path(model)) if bundle else None
    return found if found is not None and found.isa else None


def tables(model: str, found: Manifest) -> list[Any]:
    """A row a variant, then which runs here, or why none does."""
    from rich.table import Table

    rows = variants(found.record)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(rows.head):
        shown.add_column(name, justify="left" if number < rows.texts else "right", overflow="fold")
    for row in rows.rows:
        shown.add_row(*row)
    if found.variant is None:
        return [shown, refusal(Path(model), found.isa)]
    return [shown, f"This processor runs the variant for {found.variant}."]


def to_json(found: Manifest) -> dict[str, Any]:
    """The variants, best first, and the one that runs here."""
    weights = [each["weights"] for each in found.record["variants"]]
    told = [{**each.to_json(), "weights": sizes} for each, sizes in zip(found.isa, weights, strict=True)]
    return {"variant": found.variant, "variants": told}
