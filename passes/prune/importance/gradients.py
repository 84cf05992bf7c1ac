"""How the outputs move when a unit is turned down: gradients of masks, on unlabelled data.

For vectors the loss is <output, v> with random signs v: its squared mask gradients are on average the
diagonal of the Gauss-Newton matrix (Hutchinson's estimator), which is how far, squared, the outputs move to
first order when a mask falls from 1 to 0. For logits it is the log-likelihood of labels that the program
itself draws, whose squared gradients are on average the Fisher information. Both stay right for a batch of
rows at once: the rows' random numbers are independent, so their products vanish on average.

Michel et al. (2019, arXiv:1905.10650, section 4.1) rank heads by the mean absolute gradient, Kwon et al.
(2022, arXiv:2204.09656, section 3.2) heads and neurons by the mean squared one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ....ir.errors import DataError
from ....ir.program import Program
from ...common.batches import bucketed
from ...common.calibration import spread
from ...common.outputs import arguments, logits, rows
from ...manager.contract import Context, Feed
from .masks import Masked


def elimination(fisher: np.ndarray) -> np.ndarray:
    """(units,): what the loss grows by when units go one after the other, the cheapest next each time.

    With the removed units' mask at 0 the loss grows by 1/2 of the sum of `fisher` over pairs of removed units
    (Kwon et al., 2022, arXiv:2204.09656, section 3.3, who rearrange a choice made by the diagonal; here the
    whole order is greedy). Later units never get less, so that the numbers keep the order.

    Args:
        fisher: (units, units), positive semi-definite.
    """
    growth = np.diag(fisher).astype(np.float64).copy()
    found = np.empty(len(growth))
    last = 0.0
    for _ in range(len(growth)):
        unit = int(np.argmin(growth))
        last = max(np.nextafter(last, np.inf), growth[unit])
        found[unit] = last
        growth += 2 * fisher[:, unit]
        growth[unit] = np.inf
    return found


BATCH = 8  # rows that share a gradient
BATCHES = 128  # looked at, at most
DRAWS = 2  # gradients of a batch


def gradients(program: Program, whole: Masked, context: Context) -> list[np.ndarray]:
    """For each mask, float64 (samples, units): its gradients, over the root of the rows that they sum over.

    Args:
        whole: of the program in evaluation mode.

    Raises:
        DataError: a gradient is NaN or infinite.
    """
    batches = sampled(program, context)
    generator = torch.Generator().manual_seed(context.seed)
    found: list[list[np.ndarray]] = [[] for _ in whole.masks]
    with torch.enable_grad():
        for number, feed in enumerate(batches):
            context.progress("weighing units", number, len(batches))
            outputs = whole.module(*arguments(program, feed))
            for draw in range(DRAWS):
                loss, count = _loss(program, feed, outputs, generator)
                grads = torch.autograd.grad(
                    loss,
                    whole.masks,
                    retain_graph=draw < DRAWS - 1,
                    allow_unused=True,
                    materialize_grads=True,
                )
                for each, grad in zip(found, grads, strict=True):
                    each.append(grad.double().numpy() / max(1, count) ** 0.5)
    stacked = [np.stack(each) for each in found]
    if not all(np.isfinite(each).all() for each in stacked):
        raise DataError(
            "a gradient is NaN or infinite on the calibration data: look for rows that are all padding"
        )
    return stacked


def sampled(program: Program, context: Context) -> list[Feed]:
    """Small batches of the calibration data, of all lengths."""
    return spread(bucketed(program, context.calibration, BATCH, context.seed), BATCHES)


def _loss(
    program: Program, feed: Feed, outputs: Sequence[torch.Tensor], generator: torch.Generator
) -> tuple[torch.Tensor, int]:
    """(a random projection of the outputs, the rows that it sums over)."""
    total, count = torch.zeros(()), 0
    for output in outputs:
        if not output.is_floating_point():
            continue
        each = rows(program, feed, output)
        each = each[each.isfinite().all(dim=1)].float()
        if logits(program, output):
            likely = each.log_softmax(dim=-1)
            labels = torch.multinomial(likely.detach().exp(), 1, generator=generator)
            total = total + likely.gather(1, labels).sum()
        else:
            signs = torch.randint(0, 2, each.shape, generator=generator) * 2 - 1
            total = total + (each * signs).sum()
        count += len(each)
    return total, count
