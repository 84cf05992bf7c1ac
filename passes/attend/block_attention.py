"""block-attention: only those blocks of keys that a pattern shows are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.errors import PassError
from ...ir.program import Program
from ...ir.spec import IDS, MASKS
from ..manager.contract import Context, Exact, Feed, Pass, Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .parts.blocks import Band, Table
    from .parts.site import Site


@dataclass(frozen=True)
class BlockAttention(Pass):
    """Compute attention over those blocks of keys alone that its masks show, in time linear in the length.

            y = softmax(q[b,h,n,d] k[b,h,n,d]^T + mask[b,1,n,n]) v[b,h,n,d]
        ->  y = softmax(q[b,h,n/64,64,d] k[b,h,n/64,64m,d]^T + bias[b,1,n/64,64,64m]) v[b,h,n/64,64m,d]

    For patterns that `substitute-attention` wrote, and for windows that a model has of its own. What a mask
    shows is computed at several lengths: a window, dilated or in blocks, beside first tokens that are seen by
    all or see all, is cut at any length; any other pattern is a table of blocks up to the longest text (in
    the graph, so there must be one). The m blocks of keys that a block of queries sees are gathered once; no
    value has n x n numbers. What stands at padding may change.

    Left, by name: attention over all keys, scores with a position bias, caps or sinks, patterns whose blocks
    are three quarters of all keys or more (strided and axial ones often are). Short texts are faster in full:
    where programs are timed, it is kept where a call gains, and calls of one or two blocks do without.

    Afterwards no attention is found in those layers, so whatever prunes heads or puts other attention comes
    before. For ONNX Runtime: TVM's kernels compute the same blocks from the mask, so leave it out there.

    block: places in a block of queries and of keys. layers: which self-attentions, by number from 0; where
    none are named, all.
    """

    name: ClassVar[str] = "block-attention"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Exact(1e-5, where="mask")

    block: int = 64
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block is {self.block}, and a block has one place at least")
        if min(self.layers, default=0) < 0 or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers is {self.layers}, and layers count from 0, each once")

    def traces(self) -> bool:
        return True

    def pays(self, program: Program, feed: Feed) -> bool:
        texts = [feed[spec.name] for spec in program.inputs if spec.role in (*MASKS, *IDS)]
        return not texts or max(text.shape[-1] for text in texts) > 2 * self.block

    def run(self, program: Program, context: Context) -> Result:
        from .parts.site import sites

        found, reasons = sites(program)
        count = len(found) + len(reasons)
        for number in self.layers:
            if number >= count:
                raise PassError(f"there is no layer {number}: self-attentions are numbered 0 to {count - 1}")
        forms, left = self._forms(program, found)
        reasons |= left
        if context.measure is not None and context.gates:
            forms, slower = self._faster(program, found, forms, context)
            reasons |= slower
        done = {
            number: form
            for number, form in forms.items()
            if context.allow(f"{_name(found, number)} over blocks of {self.block}")
        }
        after = _written(program, done) if done else program
        told: dict[str, int | float | str] = {"attentions in blocks": f"{len(done)} of {count}"}
        if done:
            told["keys a query"] = " ".join(str(form.keys) for form in done.values())
        notes = (reasons[n] for n in sorted(reasons) if not self.layers or n in self.layers)
        return Result(after, bool(done), told, tuple(notes))

    def _forms(
        self, program: Program, found: Sequence[Site]
    ) -> tuple[dict[int, Band | Table], dict[int, str]]:
        """How the patterns are cut, by number, one object where they are equal; and why others aren't."""
        from .parts.cutting import cut
        from .parts.seen import Seen
        from .parts.site import beside_masks

        known: dict[tuple, Band | Table | str] = {}
        forms: dict[int, Band | Table] = {}
        reasons = {}
        for site in found:
            a = site.attention
            if self.layers and site.number not in self.layers:
                continue
            if why := beside_masks(a):
                reasons[site.number] = f"{site.name}: {why}"
                continue
            key = (a.terms, a.mask, a.selected, a.mask_keeps, a.causal)
            if key not in known:
                try:
                    made = cut(Seen(program, site), self.block)
                    known[key] = known.setdefault(made.key, made)
                except ValueError as reason:
                    known[key] = str(reason)
            form = known[key]
            if isinstance(form, str):
                reasons[site.number] = f"{site.name}: {form}"
            else:
                forms[site.number] = form
        return forms, reasons

    def _faster(
        self, program: Program, found: Sequence[Site], forms: Mapping[int, Band | Table], context: Context
    ) -> tuple[dict[int, Band | Table], dict[int, str]]:
        """Those patterns with which some call gains, all layers of one measured together."""
        from ..lower.timed.timing import Timing
        from ..manager.pipeline import GAIN

        timing: Timing | None = None
        kept: dict[int, Band | Table] = {}
        slower: dict[int, str] = {}
        for form in dict.fromkeys(forms.values()):
            mine = {number: each for number, each in forms.items() if each is form}
            timing = timing or Timing(program, context, "")
            ratios = timing.ratios(_written(program.clone(), mine))
            if any(ratio.low > GAIN for ratio in ratios.values()):
                kept |= mine
                continue
            best = max((ratio.median for ratio in ratios.values()), default=0.0)
            for number in mine:
                slower[number] = f"{_name(found, number)}: with it a call is {best:.2f} times as fast at best"
        return kept, slower


def _name(found: Sequence[Site], number: int) -> str:
    return next(site.name for site in found if site.number == number)


def _written(program: Program, forms: Mapping[int, Band | Table]) -> Program:
    """The program with blocks in the place of those attentions."""
    from ...ir.fx.graph import prune
    from .parts.blocked import Shared, blocked, shared
    from .parts.site import sites

    known: dict[int, Shared] = {}
    for site in sites(program)[0]:
        if (form := forms.get(site.number)) is not None:
            if id(form) not in known:
                known[id(form)] = shared(program, site, form)
            site.end.replace_all_uses_with(blocked(site, known[id(form)]))
    prune(program.graph)
    program.graph.recompile()
    return program
