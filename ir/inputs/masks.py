"""Which tokens of a call are real, whatever way round the model's masks are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..spec import MASKS, InputSpec


def real_tokens(
    inputs: Iterable[InputSpec], feed: Mapping[str, np.ndarray], *roles: str
) -> dict[str, np.ndarray]:
    """Booleans (batch, length) by the name of each mask of tokens, that of the outputs' tokens first.

    Args:
        roles: of the masks wanted; by default every one of `MASKS`.
    """
    wanted = roles or MASKS
    specs = [spec for spec in inputs if spec.role in wanted and spec.name in feed]
    return {
        spec.name: spec.kept(feed[spec.name])
        for spec in sorted(specs, key=lambda spec: wanted.index(spec.role))
    }


def masks_along(
    inputs: Iterable[InputSpec], feed: Mapping[str, np.ndarray], shape: Sequence[int]
) -> list[np.ndarray]:
    """Masks of real tokens that an array of a shape is laid out by: its first axes are the mask's.

    That of the outputs' tokens is first. An encoder-decoder's values are of one length or of the other.
    """
    masks = real_tokens(inputs, feed).values()
    return [real for real in masks if tuple(shape[: real.ndim]) == real.shape]
