"""Silence for libraries that talk while they work: our own messages are the only ones a person reads."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, no log records below CRITICAL and no bars from transformers, until the block ends."""
    before = logging.root.manager.disable
    bars = getattr(sys.modules.get("transformers.utils.logging"), "is_progress_bar_enabled", bool)()
    if bars:
        sys.modules["transformers.utils.logging"].disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)
            if bars:
                sys.modules["transformers.utils.logging"].enable_progress_bar()
