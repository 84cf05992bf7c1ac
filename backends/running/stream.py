"""A long text read in segments: the memory that each call leaves is what the next one takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...ir.errors import InputError
from ...ir.inputs.memory import following
from ...ir.spec import InputSpec
from ..bundles.feeds import Feed


class Stream:
    """Texts that are read on and on, a row each. Not for several threads.

    Attributes:
        memory: arrays by input name, of the texts so far; empty before the first segment. Others may be put
            there, such as those that another stream had.
    """

    def __init__(self, run: Callable[[Feed], dict[str, np.ndarray]], inputs: Sequence[InputSpec]) -> None:
        """
        Raises:
            InputError: the model has no memory.
        """
        if not any(spec.given_by for spec in inputs):
            raise InputError("the model remembers nothing from call to call: build it with segment-memory")
        self._run, self._inputs = run, inputs
        self.memory: Mapping[str, np.ndarray] = {}

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """What the model gives for the next segment of each text, without its memory.

        Raises:
            InputError: as a bundle's `run`; other rows than before are other texts: begin another stream.
        """
        outputs = self._run({**feed, **self.memory})
        self.memory = following(self._inputs, outputs)
        kept = {spec.given_by for spec in self._inputs}
        return {name: array for name, array in outputs.items() if name not in kept}
