"""`optimize inspect --quant BUNDLE`: what quantization did to each layer, worst first."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from ...backends.bundles.manifest import read_manifest
from ...ir.errors import BundleError
from ...passes.quantize.report.layer import Layer, of_json


def rows(bundle: str) -> list[Layer]:
    """The layers that a bundle's manifest records, worst signal-to-noise ratio first.

    Raises:
        BundleError: there is no bundle there, or nothing in it was quantized.
    """
    recorded = read_manifest(Path(bundle)).record.get("quantization") or []
    if not recorded:
        raise BundleError(
            f"{bundle} has no quantized layer: build one with --preset balanced, or a pipeline that quantizes"
        )
    return sorted((of_json(each) for each in recorded), key=lambda layer: layer.snr)


def table(found: list[Layer]) -> Any:
    """A row a layer, named by its weight; where several share one, by what each gives as well."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    uses = Counter(each.weight for each in found)
    shown.add_column("layer", overflow="fold")
    shown.add_column("kernel")
    for name in ("range", "clipped", "SQNR dB", "of activation", "of weight", "µs before", "µs after"):
        shown.add_column(name, justify="right")
    for each in found:
        times = [f"{value:.0f}" if value is not None else "–" for value in (each.before_us, each.after_us)]
        activation = f"{each.activation_snr:.1f}" if math.isfinite(each.activation_snr) else "–"
        name = each.weight if uses[each.weight] == 1 else f"{each.weight} → {each.layer}"
        shown.add_row(
            name, each.kernel, f"{each.low:.3g} … {each.high:.3g}", f"{each.clipped:.2%}",
            f"{each.snr:.1f}", activation, f"{each.weight_snr:.1f}", *times,
        )  # fmt: skip
    return shown
