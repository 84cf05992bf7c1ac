"""What passes that train have in common: their options, where a run is kept, and what they report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ....ir.program import Program
from ...common.batches import bucketed, parted
from ...common.calibration import check
from ...manager.contract import Context, Feed, Lossy, Pass, Result
from ...manager.text import print_pass

if TYPE_CHECKING:
    import torch

    from .checkpoints import Checkpoints
    from .trainer import Loss


@dataclass(frozen=True)
class Recovery(Pass):
    """A pass that trains the program on unlabelled data, with the captured model as its teacher.

    steps, rate, decay, accumulate, minutes, patience: as `trainer.Plan` has them.
    precision: of products and attention; weights and their updates are float32. auto: bfloat16 where the
        processor multiplies it.
    batch: rows to a batch; they are of like length, so that padding isn't computed.
    embeddings: train tables too. Few texts use few of their rows, and the rest must stay what the others are
        to fit to.
    recompute: keep no activation inside a layer and compute it again for the gradient: less memory, a third
        more time.
    checkpoint: a folder where the run is kept; by default the context's cache, where it has one. A run that
        was stopped, killed too, goes on from there when it is started again.
    """

    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    steps: int = 1500
    rate: float = 3e-4
    decay: float = 0.01
    batch: int = 32
    accumulate: int = 1
    minutes: float = 0.0
    patience: int = 5
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    embeddings: bool = False
    recompute: bool = False
    checkpoint: str = ""

    def requires(self) -> tuple[str, ...]:
        return ("original", "calibration")

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and at least one is needed")
        for name in ("decay", "minutes", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name):g}, and cannot be below 0")
        if self.rate <= 0:
            raise ValueError(f"rate is {self.rate:g}, and nothing is learned unless it is above 0")

    def data(self, program: Program, context: Context) -> tuple[list[Feed], list[Feed]]:
        """(batches to train on, batches held out).

        Raises:
            DataError: the data are empty, constant, NaN, or do not fit the program.
        """
        feeds = context.training or context.calibration
        check(program, feeds)
        return parted(bucketed(program, feeds, self.batch, context.seed))

    def own(self, program: Program) -> dict[str, torch.nn.Parameter]:
        """The program's own parameters, put in place of those it shares: by name, those that are to learn.

        Where weights were set to zero (own.keep_zeros), they stay so.
        """
        from .own import keep_zeros, own_parameters, tables

        left = set() if self.embeddings else tables(program.graph)
        found = {name: p for name, p in own_parameters(program.graph).items() if name not in left}
        keep_zeros(found.values())
        return found

    def recomputed(self, module: torch.nn.Module) -> torch.nn.Module:
        from .recompute import Recomputed

        return Recomputed(module) if self.recompute else module

    def learned(
        self,
        program: Program,
        context: Context,
        parameters: Mapping[str, torch.nn.Parameter],
        loss: Loss,
        batches: tuple[Sequence[Feed], Sequence[Feed]],
        notes: Sequence[str] = (),
    ) -> Result:
        """Trains, and gives the program in evaluation mode.

        Args:
            parameters: the program's own, in place already, and those of the loss.
        """
        from ....ir.fx.mode import set_mode
        from .trainer import Plan, train

        kept = self._kept(program, context, batches)
        options = {f.name: getattr(self, f.name) for f in fields(Plan) if hasattr(self, f.name)}
        options["precision"] = self._precision()
        try:
            log = train(
                parameters,
                loss,
                batches[0],
                Plan(**options, seed=context.seed),
                held_out=batches[1],
                kept=kept,
                progress=context.progress,
                title=self.name,
            )
        except KeyboardInterrupt:
            if kept is None or not kept.exists():
                raise
            raise KeyboardInterrupt(
                f"what {self.name} learned is kept, and the same command goes on from there"
            ) from None
        set_mode(program.graph, training=False)
        program.graph.recompile()
        said = [*notes, *log.notes]
        if kept is not None and log.resumed:
            said.append(
                f"went on from step {log.resumed} of the run kept in {kept.folder}; delete it to start anew"
            )
        statistics: dict[str, int | float | str] = {
            "steps": len(log.losses),
            "minutes": round(log.seconds / 60, 1),
            "first loss": _short(np.mean(log.losses[:20])),
            "last loss": _short(np.mean(log.losses[-20:])),
            "parameters trained": sum(p.numel() for p in parameters.values()),
            "precision": self._precision(),
        }
        if log.held_out:
            statistics["held-out loss"] = _short(min(value for _, value in log.held_out))
        return Result(program, True, statistics, tuple(said), curves=log.curves())

    def _precision(self) -> Literal["float32", "bfloat16"]:
        if self.precision != "auto":
            return self.precision
        from .trainer import multiplies_bfloat16

        return "bfloat16" if multiplies_bfloat16() else "float32"

    def _kept(
        self, program: Program, context: Context, batches: tuple[Sequence[Feed], Sequence[Feed]]
    ) -> Checkpoints | None:
        """Where this run is kept: a folder of its own, by everything that its numbers depend on."""
        from .checkpoints import Checkpoints
        from .workers import join

        folder = Path(self.checkpoint) if self.checkpoint else context.cache and context.cache / "training"
        if not folder:
            return None
        if not self.checkpoint:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError:  # nobody asked for the cache, so a run does without
                return None
        assert context.original is not None
        key = {
            "pass": print_pass(replace(self, checkpoint="")),
            "program": program.fingerprint(),
            "teacher": context.original.fingerprint(),
            "data": _digest([*batches[0], *batches[1]]),
            "seed": context.seed,
            "precision": self._precision(),
            "processes": join().count,
        }
        name = hashlib.blake2b(repr(sorted(key.items())).encode(), digest_size=8).hexdigest()
        return Checkpoints(folder / f"{self.name}-{name}", key)


def _short(value: Any) -> float:
    return float(f"{value:.4g}")


def _digest(feeds: Sequence[Feed]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for feed in feeds:
        for name, array in sorted(feed.items()):
            digest.update(f"{name} {array.dtype} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
