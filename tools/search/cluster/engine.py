"""A search whose candidates are made on the machines of a Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ...config import RunConfig
from ...console import Console
from ..begun import Begun
from ..evaluation import evaluation
from ..goal import Goal
from ..job import Given
from ..job import run as searched
from ..making import Workers
from ..order import Order, Searched
from .joined import joined
from .workers import Cluster


def run(
    config: RunConfig, order: Order, console: Console, source: Any = None, inputs: Any = None
) -> Searched:
    """As `job.run`.

    Raises:
        GraphwrightError: as there; no Ray runs, or none of its machines can take part.
    """
    with joined():
        return searched(config, order, console, source, inputs, _workers)


@contextmanager
def _workers(given: Given, begun: Begun, aim: Goal) -> Iterator[Workers]:
    """Each machine begins from the model and the data itself."""
    what = (given.config, given.goal, given.source, given.inputs)
    begin = partial(evaluation, *what, os.getcwd(), begun.holds)
    with Cluster(begin, aim, given.console.say, begun.console.progress) as workers:
        yield workers
