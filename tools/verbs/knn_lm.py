"""`optimize knn-lm`: a datastore of a language model's states, and perplexity without and with it."""

from __future__ import annotations

from pathlib import Path

from ..console import Console
from ..judge.columns import Column
from ..retrieval.keys import LanguageModel
from ..retrieval.knn_lm import Datastore, Mixed
from ..retrieval.record import read_record
from ..retrieval.texts import texts_of


def run(
    model: str, directory: str, texts: str | None, data: str | None, column: Column | None, neighbours: int,
    weight: float | None, temperature: float | None, threads: int, force: bool, console: Console,
) -> tuple[Datastore, Mixed | None]:  # fmt: skip
    """Build a datastore where there are texts for it, open it otherwise, and judge it where there is data.

    Raises:
        GraphwrightError: as `LanguageModel`, `Datastore.build` and `Datastore.perplexity`, or of a file.
    """
    if texts is None:
        read_record(Path(directory))  # what is no datastore is refused before the model is captured
    opened = LanguageModel(model, threads)
    if texts is not None:
        found = Datastore.build(opened, texts_of(texts, column, console.say), directory, force=force)
    else:
        found = Datastore(directory, opened)
    if data is None:
        return found, None
    judged = texts_of(data, column, console.say)
    return found, found.perplexity(judged, weight, temperature, neighbours)


def lines(directory: str, found: Datastore, mixed: Mixed | None) -> list[str]:
    """What there is, and what it is worth."""
    said = [f"{directory}: {len(found)} tokens"]
    if mixed is not None:
        said.append(
            f"perplexity {mixed.plain:.3f}, with the datastore {mixed.mixed:.3f} ({mixed.tokens} tokens, "
            f"{mixed.neighbours} neighbours, weight {mixed.weight:g}, temperature {mixed.temperature:g})"
        )
    return said
