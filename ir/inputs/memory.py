"""What a program remembers from call to call: empty where nothing was given, and what the next call takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..spec import InputSpec, numpy_dtype

Feed = Mapping[str, np.ndarray]


def remembering(inputs: Sequence[InputSpec], feed: Feed) -> Feed:
    """A feed with an empty memory for each that it leaves out: the first segment of each text."""
    if not isinstance(feed, Mapping):
        return feed  # refused by whoever is given it
    absent = [spec for spec in inputs if spec.given_by and spec.name not in feed]
    if not absent:
        return feed
    sizes = {
        dim: size
        for spec in inputs
        if spec.name in feed
        for dim, size in zip(spec.shape, np.shape(feed[spec.name]), strict=False)
    }
    empty = {
        spec.name: np.zeros([sizes.get(dim, 1) if isinstance(dim, str) else dim for dim in spec.shape],
                            numpy_dtype(spec.dtype))
        for spec in absent
    }  # fmt: skip
    return {**feed, **empty}


def following(inputs: Sequence[InputSpec], outputs: Feed) -> dict[str, np.ndarray]:
    """The memory that a call's outputs leave for the next one, by input name."""
    return {spec.name: outputs[spec.given_by] for spec in inputs if spec.given_by}
