"""share-projections: a narrower model, all of whose weights are the wide one's through one shared matrix."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir.errors import PassError
from ...ir.program import Program
from ..common.batches import batches
from ..manager.contract import Context, Lossy, Pass, Result

MULTIPLE = 16  # of features, for the sake of vector units


@dataclass(frozen=True)
class ShareProjections(Pass):
    """Narrow the residual stream to its principal directions, the same ones in every layer.

            h = embedding(table[30522,768], ids); y = linear(h, w[3072,768]); z = linear(y, v[768,3072])
        ->  h = embedding(table U, ids); y = linear(h, w U); z = linear(y, U^T v)        U[768,512]

    One orthonormal matrix joins the widths of all layers, as the shared projections of Zhao et al., 2019,
    arXiv:1909.11687, section 3.2, join student and teacher. Nothing of it is left in the graph but behind an
    output that is the stream itself, which keeps its shape by a product with U^T. `prune-hidden` keeps some
    features and drops others; this keeps what texts vary in. `distill{projections=shared}` recovers, with the
    wide model as teacher over the same matrix. Heads and feed-forwards keep their sizes.

    U is the leading principal directions of what the norms give on the calibration data, pooled over layers
    (SliceGPT: Ashkboos et al., 2024, arXiv:2401.15024, has one a layer). With RMSNorm, which divides by a
    length that any basis has, and with LayerNorm, where U takes the ones to the ones, a change of basis alone
    changes no output. Norms' scales are folded into the products behind them first. Where they cannot be,
    because the stream goes on through them (post-norm: BERT), no basis but the features' own follows them
    exactly: U spans the same space by a basis in which their mean is diagonal, a scale and a shift by
    direction are fitted to the texts, and notes say how much is missed.

    Vocabularies stay the same.

    width: features that are left, at most those there are; by default three quarters, in multiples of 16.
    tokens: of calibration data, at most.
    """

    name: ClassVar[str] = "share-projections"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    width: int | None = None
    tokens: int = 20_000

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 2:
            raise ValueError(f"width is {self.width}, and a stream has two features or more")
        if self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}, and directions take at least one")

    def requires(self) -> tuple[str, ...]:
        return ("calibration",)

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.evaluated import evaluated
        from ..common.fx_weights import quantized
        from .rotated.directions import directions, moments
        from .rotated.fitted import fit, in_order
        from .rotated.narrow import narrow
        from .rotated.scales import fold, own_scale, store_scales
        from .rotated.streams import rotatable

        if (what := quantized(program.graph)) is not None:
            raise PassError(f"the model is quantized already (it has {what}): share projections before")
        wide = evaluated(program).clone()
        store_scales(wide)
        first, notes = rotatable(wide)
        if not first:
            raise PassError(f"no residual stream to narrow: {notes[0] if notes else 'no layers were found'}")
        kept = {norm.root.name for stream in first for norm in fold(wide, stream.norms)}
        found = rotatable(wide)[0]  # what was folded may have made biases
        widths = [self._width(stream.width) for stream in found]
        feeds = batches(program, context.calibration, self.tokens, context.seed)
        work, energies, norms = wide.clone(), [], []
        for stream, width in zip(found, widths, strict=True):
            if not context.allow(f"narrow a stream of {stream.width} to {width}"):
                continue
            gram = moments(wide, stream.sites, feeds)
            scale = own_scale([norm for norm in stream.norms if norm.root.name in kept])
            mean = any(norm.kind == "layer_norm" for norm in stream.norms)
            matrix = directions(gram, width, scale, mean)
            energies.append((stream.width, width, float(np.trace(matrix.T @ gram @ matrix))))
            narrow(work, stream, matrix)
            norms += [(norm, matrix) for norm in stream.norms]
        if not energies:
            return Result(program, False, {}, tuple(notes))
        missed = fit(work, wide, in_order(wide, norms), feeds, context)
        notes += _told(missed, kept)
        statistics: dict[str, int | float | str] = {
            "hidden size before": " ".join(str(before) for before, _, _ in energies),
            "hidden size": " ".join(str(width) for _, width, _ in energies),
            "energy kept": " ".join(f"{energy:.4f}" for _, _, energy in energies),
            "norms folded": f"{sum(norm.root.name not in kept for norm, _ in norms)} of {len(norms)}",
        }
        return Result(work, True, statistics, tuple(notes))

    def _width(self, size: int) -> int:
        """The width for a stream of this many features.

        Raises:
            PassError: there is none.
        """
        if self.width is None:
            width = size * 3 // 4 // MULTIPLE * MULTIPLE
            if not width:
                raise PassError(
                    f"three quarters of {size} features are no multiple of {MULTIPLE}: give width="
                )
            return width
        if self.width > size:
            raise PassError(f"width is {self.width}, and a stream has {size} features: give that or less")
        return self.width


def _told(missed: Mapping[str, float], kept: Set[str]) -> list[str]:
    """A sentence for the norms whose scales were approximated."""
    own = [missed[name] for name in missed if name in kept]
    if not own:
        return []
    return [
        f"scales that norms keep of their own, since more than products reads them: {len(own)}, fitted to "
        f"the texts; of what they give, {min(own):.2g} to {max(own):.2g} of the squares is missed"
    ]
