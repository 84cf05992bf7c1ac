"""How a feed-forward falls into experts: which neurons are one, what scores them, and what a choice keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ....ir.program import Program
from ...common.calibration import real_rows
from ...common.lockstep import Lockstep
from ...manager.contract import Feed
from ...share.groups.sites import Site
from .clusters import balanced

_CHUNK = 256  # rows whose experts' results are held at a time
_RIDGE = 1e-4  # times the mean of the second moments


@dataclass(frozen=True)
class Plan:
    """order: (experts, neurons each). router: (experts, in), shift: (experts,), of the scores. Without texts
    there is no more; with them, for each number of experts chosen, from 1:

    unchosen: (experts, experts, out), what each expert gives on average where it is not chosen.
    kept: (experts,), the share of the output's energy, about its mean, on rows held out.
    loads: (experts, experts), the share of these rows that each expert is given.
    """

    order: np.ndarray
    router: np.ndarray
    shift: np.ndarray
    unchosen: np.ndarray | None = None
    kept: np.ndarray | None = None
    loads: np.ndarray | None = None


def plans(program: Program, found: Sequence[Site], feeds: Sequence[Feed], experts: int) -> Iterator[Plan]:
    """Those of feed-forwards, in graph order."""
    ends = [node for site in found for use in range(len(site.uses)) for node in _ends(site, use)]
    step = Lockstep(program, feeds, ends) if feeds else None
    for site in found:
        ups, down = _weights(site)
        if step is None:
            yield _of_weights(site, ups, experts)
            continue
        rows = [_rows(program, step, site, use, feeds) for use in range(len(site.uses))]
        x, inside = (np.concatenate(each) for each in zip(*rows, strict=True))
        yield _of_rows(x, inside, down, experts)
        step.let_go(*(node for use in range(len(site.uses)) for node in _ends(site, use)))


def _ends(site: Site, use: int) -> tuple:
    """What a feed-forward reads, and what its last product does."""
    return site.uses[use][0].input.native, site.body[use][-1]


def _weights(site: Site) -> tuple[list[np.ndarray], np.ndarray]:
    """(neurons, in) of each first product, and (out, neurons); float64."""
    ups = []
    for matrix, pieces in site.products[:-1]:
        weight = matrix.numbers().double().numpy()
        ups += [weight[start:stop] for start, stop in pieces]
    return ups, site.products[-1][0].numbers().double().numpy()


def _rows(
    program: Program, step: Lockstep, site: Site, use: int, feeds: Sequence[Feed]
) -> tuple[np.ndarray, np.ndarray]:
    """(rows, in) and (rows, neurons) at real tokens of all feeds."""
    source, end = _ends(site, use)
    step.reached(end)
    width = source.meta["val"].shape[-1]
    found = []
    for number, feed in enumerate(feeds):
        x, inside = step.value(source, number), step.value(end, number)
        if x.shape[:-1] != inside.shape[:-1]:
            x, inside = x.reshape(-1, x.shape[-1]), inside.reshape(-1, inside.shape[-1])
        found.append(real_rows(program, feed, np.concatenate([x.numpy(), inside.numpy()], axis=-1)))
    both = np.concatenate(found)
    return both[:, :width], both[:, width:]


def _of_weights(site: Site, ups: Sequence[np.ndarray], experts: int) -> Plan:
    """Neurons that look for the same are one expert, whose score is how much the input is like their mean
    (MoEfication's parameter clustering and similarity selection)."""
    looks = ups[-1]  # the gate's, where that is a product of its own
    unit = looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-12)
    order = balanced(unit @ unit.T, experts)
    return Plan(order, unit[order].mean(1), np.zeros(experts))


def _of_rows(x: np.ndarray, inside: np.ndarray, down: np.ndarray, experts: int) -> Plan:
    held = np.arange(len(x)) % 4 == 3 if len(x) >= 8 else np.ones(len(x), bool)
    fit = ~held if len(x) >= 8 else held
    mean = inside[fit].mean(0, dtype=np.float64)
    strength = np.abs(inside[fit] - mean) * np.linalg.norm(down, axis=0)
    order = balanced(strength.T @ strength, experts)
    router, shift = _router(x[fit], _norms(inside[fit] - mean, down, order))
    ranks = _ranks(x @ router.T + shift)
    unchosen = _unchosen(inside[fit], down, order, ranks[fit])
    whole = float((((inside[held] - mean) @ down.T) ** 2).sum())
    lost = _lost(inside[held], down, order, ranks[held], unchosen)
    loads = np.stack([(ranks[held] < count).mean(0) for count in range(1, experts + 1)])
    return Plan(order, router, shift, unchosen, 1 - lost / (whole or 1.0), loads)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """(rows, experts): 0 of the best."""
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)


def _norms(inside: np.ndarray, down: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(rows, experts): how long each expert's result is."""
    found = [np.linalg.norm(inside[:, mine] @ down[:, mine].T, axis=1) for mine in order]
    return np.stack(found, axis=1)


def _router(x: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression: (experts, in) and (experts,), whose products with rows are nearest to what is wanted.

    Args:
        x: (rows, in). wanted: (rows, experts).
    """
    about, level = x.mean(0, dtype=np.float64), wanted.mean(0)
    centred = x - about
    moments = centred.T @ centred
    pull = _RIDGE * float(np.trace(moments)) / len(moments) or 1.0
    router = np.linalg.solve(moments + pull * np.eye(len(moments)), centred.T @ (wanted - level)).T
    return router, level - router @ about


def _unchosen(inside: np.ndarray, down: np.ndarray, order: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Plan.unchosen; zeros where an expert is always chosen."""
    experts = len(order)
    means = np.zeros((experts, experts, len(down)))
    for number, mine in enumerate(order):
        last = ranks[:, number, None] == np.arange(experts)  # of which rank it is
        sums = last.T.astype(inside.dtype) @ inside[:, mine]
        behind = np.cumsum(sums[::-1], axis=0)[::-1][1:]
        counts = np.cumsum(last.sum(0)[::-1])[::-1][1:, None]
        means[:-1, number] = behind / np.maximum(counts, 1) @ down[:, mine].T
    return means


def _lost(
    inside: np.ndarray, down: np.ndarray, order: np.ndarray, ranks: np.ndarray, unchosen: np.ndarray
) -> np.ndarray:
    """(experts,): the squared error where the 1, 2, ... best are chosen and the others give their average."""
    lost = np.zeros(len(order))
    for start in range(0, len(inside), _CHUNK):
        some, places = inside[start : start + _CHUNK], ranks[start : start + _CHUNK]
        each = np.stack([some[:, mine] @ down[:, mine].T for mine in order], axis=1)
        for count in range(1, len(order)):
            left = (places >= count).astype(each.dtype)
            away = np.einsum("re,reo->ro", left, each) - left @ unchosen[count - 1]
            lost[count - 1] += float((away**2).sum())
    return lost
