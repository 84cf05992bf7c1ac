"""block-attention: only those blocks of keys that a pattern shows are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.errors import PassError
from ...ir.program import Program
from ...ir.spec import IDS, MASKS
from ..manager.contract import Context, Exact, Feed, Pass, Ratio, Result

if TYPE_CHECKING:
    from .parts.patterned import Forms


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
    are more than half of all keys (strided and axial ones often are). Short texts are faster in full: where
    programs are timed, it is kept where a call gains over full attention in one kernel, and calls that are
    slower with it, or of one or two blocks, do without.

    Afterwards no attention is found in those layers, so whatever prunes heads or puts other attention comes
    before. For ONNX Runtime, whose presets begin with it where a model has windows and calls are long: TVM's
    kernels compute the same blocks from the mask, so leave it out there.

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
        texts = _lengths(program, feed)
        return not texts or max(texts) > 2 * self.block

    def worthwhile(self, program: Program, feeds: Sequence[Feed]) -> bool:
        if program.dialect != "fx" or not super().worthwhile(program, feeds):
            return False
        from .parts.patterned import patterned

        longest = max((length for feed in feeds for length in _lengths(program, feed)), default=None)
        return patterned(program, longest)

    def run(self, program: Program, context: Context) -> Result:
        from .parts.patterned import forms, written
        from .parts.site import sites

        found, reasons = sites(program)
        count = len(found) + len(reasons)
        for number in self.layers:
            if number >= count:
                raise PassError(f"there is no layer {number}: self-attentions are numbered 0 to {count - 1}")
        cuts, left = forms(program, found, self.block, self.layers)
        reasons |= left
        names = {site.number: site.name for site in found}
        ratios: Mapping[str, Ratio] = {}
        if cuts and context.measure is not None and context.gates:
            cuts, slower, ratios = _faster(program, cuts, context)
            reasons |= {number: f"{names[number]}: {why}" for number, why in slower.items()}
        done = {
            number: form
            for number, form in cuts.items()
            if context.allow(f"{names[number]} over blocks of {self.block}")
        }
        after = written(program, done) if done else program
        told: dict[str, int | float | str] = {"attentions in blocks": f"{len(done)} of {count}"}
        if done:
            told["keys a query"] = " ".join(str(form.keys) for form in done.values())
        asked = {n: reasons[n] for n in sorted(reasons) if not self.layers or n in self.layers}
        return Result(after, bool(done), told, _notes(asked), ratios=ratios)


def _lengths(program: Program, feed: Feed) -> list[int]:
    """Of texts; none of images."""
    return [feed[spec.name].shape[-1] for spec in program.inputs if spec.role in (*MASKS, *IDS)]


def _faster(
    program: Program, cuts: Forms, context: Context
) -> tuple[Forms, dict[int, str], Mapping[str, Ratio]]:
    """Those patterns with which some call gains, all layers of one measured together; why not the others, by
    number; and what all that are kept gain."""
    from ..manager.pipeline import GAIN
    from .parts.patterned import written
    from .parts.timed import timing

    clock = timing(program, context)
    kept: Forms = {}
    slower: dict[int, str] = {}
    ratios: Mapping[str, Ratio] = {}
    patterns = list(dict.fromkeys(cuts.values()))
    for form in patterns:
        mine = {number: each for number, each in cuts.items() if each is form}
        ratios = clock.ratios(written(program.clone(), mine))
        if any(ratio.low > GAIN for ratio in ratios.values()):
            kept |= mine
        else:
            best = max((ratio.median for ratio in ratios.values()), default=0.0)
            slower |= dict.fromkeys(mine, f"with it a call is {best:.2f} times as fast at best")
    if kept and len(patterns) > 1:
        ratios = clock.ratios(written(program.clone(), kept))
    return kept, slower, ratios


def _notes(reasons: Mapping[int, str]) -> tuple[str, ...]:
    """A sentence for each reason, with all layers that have it."""
    layers: dict[str, list[tuple[int, str]]] = {}
    for number, reason in reasons.items():
        name, _, why = reason.partition(": ")
        layers.setdefault(why, []).append((number, name))
    return tuple(
        f"{those[0][1]}: {why}"
        if len(those) == 1
        else f"{those[0][1]} and {len(those) - 1} more ({', '.join(str(n) for n, _ in those)}): {why}"
        for why, those in layers.items()
    )
