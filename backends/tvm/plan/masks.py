"""Which tokens a mask keeps, found by computing it: TVM runs the part of the graph that makes the masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from ....ir.blocks.base import Attention
from ....ir.blocks.sight import Fixed, Sight, hiding, rule, visible
from ....ir.spec import MASKS, InputSpec
from ....ir.values import Value
from ..schedule.indices import flattening_right
from .rebuild import part


class TokenMasks:
    """What the attentions of a function hide.

    Args:
        module: of one Relax function, "main".
        attentions: of it.
        inputs: main's parameters.
        mask: the one that says which tokens are real, (batch, length); None for no such input.
        others: values that may be masks of tokens.
    """

    def __init__(
        self,
        module: Any,
        attentions: Sequence[Attention],
        inputs: Sequence[InputSpec],
        mask: InputSpec | None,
        others: Iterable[Value] = (),
    ) -> None:
        parts = {value: None for attention in attentions for value in hiding(attention)}
        parts |= dict.fromkeys(others)
        self._parts = [value for value in parts if value.const is None]
        self._fixed = {value: value.const for value in parts if value.const is not None}
        self._seen: list[tuple[np.ndarray | None, dict[Value, np.ndarray]]] = []
        self._sights: dict[tuple[Any, ...], Sight | Fixed | None] = {}
        parameters, names = module["main"].params, [spec.name for spec in inputs]
        shapes = {n: [int(d) for d in p.ty.shape] for n, p in zip(names, parameters, strict=True)}
        compiled = _compiled(module, [value.native for value in self._parts]) if self._parts else None
        for seed in range(3 if mask else 1):
            feed = {n: np.zeros(shapes[n], str(p.ty.dtype)) for n, p in zip(names, parameters, strict=True)}
            kept = None
            if mask is not None:
                kept = _ragged(shapes[mask.name], seed)
                feed[mask.name] = mask.masking(kept).astype(feed[mask.name].dtype)
            results = _run(compiled, [feed[n] for n in names]) if compiled else []
            self._seen.append((kept, dict(zip(self._parts, results, strict=True)) | self._fixed))

    def sight(self, attention: Attention) -> Sight | Fixed | None:
        """What each real token sees among those that the mask input keeps; None where no rule holds, or more
        than hiding is done to a score."""
        key = (*attention.terms, attention.mask, attention.selected, attention.mask_keeps, attention.causal)
        if key not in self._sights:  # layers share masks
            self._sights[key] = self._rule(attention)
        return self._sights[key]

    def _rule(self, attention: Attention) -> Sight | Fixed | None:
        cases = []
        for kept, values in self._seen:
            seen = None if kept is None else visible(attention, kept, values)
            if kept is None or seen is None:
                return None
            cases.append((kept, seen))
        return rule(cases)

    def keeps(self, value: Value) -> bool:
        """Whether a value of (batch, length, n) is 1 for the tokens that the mask input keeps, else 0."""
        return all(
            kept is not None and bool((values[value] == kept[..., None]).all()) for kept, values in self._seen
        )


def _ragged(shape: Sequence[int], seed: int) -> np.ndarray:
    """A mask with every row padded to another length and a hole in the middle: on the right, or on the left;
    the third is of ones."""
    batch, length = shape
    if seed == 2:
        return np.ones((batch, length), bool)
    kept = np.arange(length)[None] < np.maximum(length - 1 - (np.arange(batch)[:, None] + seed) % length, 1)
    if length > 4:
        kept[:, 1 + seed] = False
    return kept[:, ::-1] if seed else kept


def _compiled(module: Any, values: Sequence[Any]) -> Any:
    """A virtual machine that computes some of main's values from its inputs."""
    target = tvm.target.Target("llvm")
    with target:
        lowered = relax.transform.LegalizeOps()(part(module, values))
    return relax.VirtualMachine(tvm.compile(flattening_right(lowered), target=target), tvm.cpu())


def _run(machine: Any, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
    results = machine["main"](*[tvm.runtime.tensor(feed) for feed in feeds])
    return [result.numpy() for result in results]


def mask_input(inputs: Iterable[InputSpec]) -> InputSpec | None:
    """The one mask of tokens among inputs; None where there is none, or several."""
    found = [spec for spec in inputs if spec.role in MASKS]
    return found[0] if len(found) == 1 else None
