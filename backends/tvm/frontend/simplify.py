"""Detours that exporters and importers take, undone in Relax: layouts, masks, scales and convolutions."""

from __future__ import annotations

from typing import Any

import tvm

from . import convolutions, flattened, layouts, masks
from .rewriter import Rewriter, Rule, rewritten

_TABLES = (layouts.RULES, masks.RULES, convolutions.RULES, flattened.RULES)


def simplified(module: tvm.IRModule) -> tvm.IRModule:
    """The module with these rewrites in "main"; shapes are static.

    * permutations of permutations, reshapes of reshapes, casts and broadcasts to what a value is already;
    * a transpose of the last axes behind merged leading axes is one permutation;
    * indexing that takes every element in order is a reshape;
    * rows that are flattened before what treats each by itself are flattened behind it;
    * a condition that always holds drops out of an And, and what it only made larger stays small;
    * factors of both sides of a product of activations multiply its result, once;
    * convolutions that are linear layers of neighbours or of patches become those, channels last.
    """
    names = dict.fromkeys(name for table in _TABLES for name in table)
    return rewritten(module, {name: _first([t[name] for t in _TABLES if name in t]) for name in names})


def _first(rules: list[Rule]) -> Rule:
    """The first of several rules that has something to rewrite."""

    def rule(this: Rewriter, call: Any) -> Any:
        return next((found for each in rules if (found := each(this, call)) is not None), None)

    return rule
