"""substitute-attention: other kinds of attention in the place of the full one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from ...ir.errors import PassError
from ...ir.program import Program
from ..manager.contract import Context, Lossy, Pass, Result

if TYPE_CHECKING:
    from .parts.kind import Kind
    from .parts.site import Site

_OF_ALL = ("kind", "layers", "tokens", "seed")


@dataclass(frozen=True)
class SubstituteAttention(Pass):
    """Put another kind of attention in the place of full self-attention.

            y = softmax(q k^T + mask) v
        ->  y = softmax(q k^T + where(|i - j| <= 256, mask, -3.4e38)) v                       kind=window
        ->  y = (f(q) (f(k)^T v)) / (f(q) sum f(k)), f(x) = elu(x) + 1                        kind=linear

    Projections of queries, keys, values and the output stay, so that a trained model is a start; recover with
    `distill`. Padding is never seen and a text's vector does not depend on its batch; texts of any length are
    taken. A pattern of keys is a mask in the graph: TVM's kernels and `block-attention` find it there and
    compute those blocks alone. Kinds that mix values in another way are written out.

    Left, by name: attention over another text or a cache, kinds that have no form for models that look back,
    kinds without a softmax where scores have a position bias.

    kind, with its options, which `passes/attend/kinds` says more of. Patterns of keys: "window" (window,
        dilation, global_tokens), "block" (block, neighbours, global_tokens), "strided" (stride, form,
        summary), "axial" (width, global_tokens), "random" (block, blocks), "bigbird" (block, neighbours,
        global_tokens, blocks), "etc" (window, global_tokens, segment). Other mixtures: "linear" (chunk),
        "performer" (features, learned, chunk), "linformer" (rank, length), "nystrom" (landmarks,
        iterations, convolution). Patterns that depend on the text: "lsh" (block, rounds, buckets, shared_qk),
        "routing" (clusters, coverage, block), "clustered" (clusters, top, iterations), "sinkhorn" (block,
        iterations, temperature). Weights without queries: "synthesizer" (form, trained, mixture, start, rank,
        length), "conv" (kernel, dynamic), "lsra" (share, kernel, dynamic). Softmaxes of fewer keys: "entmax"
        (alpha, learned, iterations), "adaptive-span" (span, ramp).
    layers: which self-attentions, by number from 0; where none are named, all.
    tokens: of texts that starts and errors are measured on, at most. seed: of what is drawn.
    """

    name: ClassVar[str] = "substitute-attention"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    kind: str = "window"
    layers: tuple[int, ...] = ()
    window: int | None = None
    dilation: int | None = None
    global_tokens: int | None = None
    block: int | None = None
    neighbours: int | None = None
    stride: int | None = None
    form: str | None = None
    summary: int | None = None
    width: int | None = None
    blocks: int | None = None
    segment: int | None = None
    chunk: int | None = None
    features: int | None = None
    learned: bool | None = None
    rank: int | None = None
    length: int | None = None
    landmarks: int | None = None
    iterations: int | None = None
    convolution: int | None = None
    rounds: int | None = None
    buckets: int | None = None
    shared_qk: bool | None = None
    clusters: int | None = None
    coverage: int | None = None
    top: int | None = None
    temperature: float | None = None
    kernel: int | None = None
    dynamic: bool | None = None
    share: float | None = None
    trained: bool | None = None
    mixture: bool | None = None
    start: str | None = None
    alpha: float | None = None
    span: int | None = None
    ramp: int | None = None
    tokens: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        self.made()
        if min(self.layers, default=0) < 0 or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers is {self.layers}, and layers count from 0, each once")
        if self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}, and at least one is needed")

    def made(self) -> Kind:
        """The kind, with its options."""
        from .kinds import kind

        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _OF_ALL}
        return kind(self.kind, options)

    def traces(self) -> bool:
        return True

    def requires(self) -> tuple[str, ...]:
        return ("calibration",) if self.made().needs_texts else ()

    def run(self, program: Program, context: Context) -> Result:
        from ..common.batches import batches
        from .parts.errors import errors
        from .parts.long_text import long_text
        from .parts.site import sites
        from .parts.substitute import put, tensors
        from .parts.write import written

        kind = self.made()
        long_text(program)
        found, reasons = sites(program)
        chosen, notes = self._chosen(kind, found, reasons)
        texts = context.training or context.calibration
        feeds = batches(program, texts, self.tokens, context.seed) if texts else []
        pairs = []
        for site in chosen:
            if context.allow(f"{self.kind} in place of {site.name}"):
                own = tensors(program, site, kind, feeds, self.seed)
                pairs.append((site, written(program, site, kind, own)))
        told: dict[str, int | float | str] = {
            "attentions substituted": f"{len(pairs)} of {len(found) + len(reasons)}"
        }
        if not pairs:
            return Result(program, False, told, tuple(notes))
        if feeds:
            away = errors(program, pairs, feeds)
            told["error by layer"] = " ".join(f"{error:.2g}" for error in away)
        put(program, pairs)
        return Result(program, True, told, tuple(notes))

    def _chosen(self, kind: Kind, found: list[Site], reasons: dict[int, str]) -> tuple[list[Site], list[str]]:
        """Sites that were asked for and fit, and a sentence for each that does not.

        Raises:
            PassError: a layer that there is not, or none fits.
        """
        from .parts.substitute import unfit

        count = len(found) + len(reasons)
        for number in self.layers:
            if number >= count:
                raise PassError(f"there is no layer {number}: self-attentions are numbered 0 to {count - 1}")
        asked = set(self.layers or range(count))
        why = {number: reason for number, reason in reasons.items() if number in asked}
        chosen = []
        for site in found:
            if site.number not in asked:
                continue
            if reason := unfit(kind, site):
                why[site.number] = f"{site.name}: {reason}"
            else:
                chosen.append(site)
        if not chosen:
            raise PassError(f"no attention can be {self.kind}: {why[min(why)]}")
        return chosen, [why[number] for number in sorted(why)]
