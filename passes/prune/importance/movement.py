"""Movement scores: units that training moves away from zero are kept (Sanh et al., 2020, arXiv:2005.07683).

A mask of zeros and ones stands in front of the units while the weights learn to give what the captured model
gives. Its gradient, taken straight through for units that are off too, is what a unit's score falls by. Hard:
units with the highest scores are on, fewer and fewer of them. Soft: those with a score above 0 are, and while
they are too many every score falls. Masks of whole units instead of weights are Lagunas et al.'s (2021,
arXiv:2109.04838).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ....ir.evaluated import evaluated
from ....ir.program import Program
from ...common.batches import bucketed, parted
from ...common.calibration import check
from ...common.outputs import arguments
from ...manager.contract import Context, Feed
from ...recover.teaching.comparable import alike
from ...recover.teaching.losses.by_task import at_outputs
from ...recover.teaching.objective import Objective
from ...recover.training.own import own_parameters, tables, watched
from ...recover.training.trainer import Plan, train
from ..surgery.units import Units
from .choose import Scope, lowest
from .masks import masked

BATCH = 16
RATE = 1e-2  # of scores
SETTLED = 0.7  # share of the steps after which no more units go
MEMORY = 0.99  # of the mean square of gradients, a step
SPREAD = 1e-3  # deviation of first scores: equal ones would go in the order of layers


class Scores:
    """The scores and the masks that they give.

    Gradients are scaled to a root mean square of 1 over all units and the steps before (RMSProp with one mean
    for all): a step means the same at the start, where the program still is its teacher, and later. Adam
    would scale each unit alone, and one that does nothing would move as fast as any; each step alone would
    make noise as large as any step once the right units are off and nothing is lost.
    """

    def __init__(self, sizes: Sequence[int], scope: Scope, soft: bool, seed: int) -> None:
        rng = np.random.default_rng(seed)
        first = 10 * RATE if soft else 0.0
        self.values = [first + SPREAD * rng.standard_normal(size) for size in sizes]
        self.scope, self.soft = scope, soft
        self._seen: list[torch.Tensor] = []
        self._square, self._known = 0.0, 0.0  # a running mean and how much of it is known

    def masks(self, off: float) -> list[torch.Tensor]:
        """Zeros and ones, whose gradients the scores learn from.

        Args:
            off: the share of units that is to be off.
        """
        self._learn(off)
        if self.soft:
            on = [(values > 0).astype(np.float32) for values in self.values]
        else:
            on = [np.ones(len(values), np.float32) for values in self.values]
            for mask, units in zip(on, lowest(self.values, off, self.scope), strict=True):
                mask[units] = 0
        masks = [torch.from_numpy(mask).requires_grad_() for mask in on]
        if torch.is_grad_enabled():
            self._seen = masks
        return masks

    def _learn(self, off: float) -> None:
        found = [mask.grad for mask in self._seen if mask.grad is not None]
        self._seen = []
        if not found:
            return
        square = float(torch.cat(found).square().mean())
        self._square = MEMORY * self._square + (1 - MEMORY) * square
        self._known = MEMORY * self._known + 1 - MEMORY
        size = np.sqrt(self._square / self._known)
        on = np.concatenate([values > 0 for values in self.values]).mean()
        fall = 1.0 if self.soft and on > 1 - off else 0.0
        for values, grad in zip(self.values, found, strict=True):
            values -= RATE * (grad.double().numpy() / max(size, 1e-30) + fall)


def movement(
    program: Program,
    units: Sequence[Units],
    ratio: float,
    scope: Scope,
    soft: bool,
    steps: int,
    rate: float,
    context: Context,
) -> list[np.ndarray]:
    """For each block a float64 array (units,), after training the program's own weights, in place.

    Args:
        ratio: how many units are off in the end, in [0, 1).
        rate: of the weights.

    Raises:
        DataError: the calibration data are empty, constant, NaN, or do not fit; or the loss is not finite.
        PassError: the captured model's outputs are not the program's.
    """
    assert context.original is not None
    teacher = evaluated(context.original)
    alike(teacher, program)
    feeds = context.training or context.calibration
    check(program, feeds)
    batches, _ = parted(bucketed(program, feeds, BATCH, context.seed))
    left = tables(program.graph)
    own = {name: p for name, p in own_parameters(program.graph).items() if name not in left}
    scores = Scores([one.size for one in units], scope, soft, context.seed)
    terms, _ = at_outputs(teacher, program, batches[0])
    whole = masked(evaluated(program), units)
    seen = watched(whole.module, [node for term in terms for node in term.learns])
    places = {id(parameter): name for name, parameter in seen.named_parameters()}
    names = [places[id(mask)] for mask in whole.masks]

    def student(feed: Feed, share: float) -> Sequence[torch.Tensor]:
        masks = scores.masks(ratio * _done(share))
        values: Sequence[torch.Tensor] = torch.func.functional_call(
            seen, dict(zip(names, masks, strict=True)), tuple(arguments(program, feed))
        )
        return values[len(program.outputs) :]

    loss = Objective(teacher, terms, student)
    plan = Plan(steps, rate, seed=context.seed)
    train(own, loss, batches, plan, progress=context.progress, title="movement")
    return scores.values


def _done(share: float) -> float:
    """How far the share of units that are off has come, fast first (Zhu and Gupta, 2017,
    arXiv:1710.01878)."""
    return 1 - (1 - min(1.0, share / SETTLED)) ** 3
