"""The errors a person is meant to read: one sentence that names the thing and the mend."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from reprlib import Repr
from typing import Any

_LONGEST = 2000  # characters: a list of all passes still fits


class GraphwrightError(Exception):
    """Base of every error whose message is written for the user (exit status 1, no traceback).

    As text it is one line of bounded length, whatever names and values of others it quotes.
    """

    def __str__(self) -> str:
        line = " ".join(super().__str__().split())
        return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"


class ConfigError(GraphwrightError):
    """A run's settings are wrong before any work starts."""


class CaptureError(GraphwrightError):
    """A model, or one of its files, cannot become a Program."""


class PipelineError(GraphwrightError):
    """A pipeline is wrong before any work starts: unknown pass or option, unmet need, wrong dialect."""


class ContractError(GraphwrightError):
    """A pass broke its contract and was rolled back."""


class ProgramError(GraphwrightError):
    """A program does not run as it is, so that nothing made of it can be compared with it."""


class PassError(GraphwrightError):
    """A pass cannot do what it was asked to do to this program."""


class BundleError(GraphwrightError):
    """A bundle is missing, incomplete or tampered with."""


class CheckpointError(GraphwrightError):
    """A training run's checkpoint is damaged, of another run, or in use."""


class InputError(GraphwrightError):
    """A call's arrays do not fit the model: wrong name, dtype, shape, or an id out of range."""


class DataError(GraphwrightError):
    """A data file cannot be used for the task."""


class BackendError(GraphwrightError):
    """A backend cannot build or run a program on this machine."""


class WeightError(GraphwrightError):
    """A weight holds what no model can compute with: NaN or infinity."""


class MeasureError(GraphwrightError):
    """A measurement could not be taken."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What ends a sentence about an unknown name: the nearest known one, or all of them when none is near."""
    names = sorted(known)
    near = get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(names)}"


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlong = 40


def short(value: Any) -> str:
    """A value as a sentence can quote it, whatever its size."""
    try:
        text = _SHORT.repr(value)
    except Exception:  # of a repr, or of a number of more digits than Python prints
        return f"a {type(value).__name__}"
    return text if len(text) < 200 else f"{text[:190]}..."
