"""`optimize index`: texts become an index of a bundle's vectors, or an index is asked."""

from __future__ import annotations

from typing import Any

from ...ir.errors import BundleError, InputError
from ..console import Console
from ..judge.columns import Column
from ..retrieval.index import Hit, Index
from ..retrieval.texts import texts_of


def build(
    bundle: str, texts: str, out: str, column: Column | None, append: bool, console: Console, **options: Any
) -> Index:
    """A new index of a file's texts, or an old one with them behind its own.

    Args:
        options: of `Index.build`.

    Raises:
        GraphwrightError: as `Index.build` and `Index.append`, or of the file.
    """
    stream = texts_of(texts, column, console.say)
    if not append:
        return Index.build(bundle, stream, out, **options)
    index = Index(out)
    index.append(bundle, stream)
    return index


def delete(
    directory: str, path: str | None, column: Column | None, rows: list[int], console: Console
) -> tuple[int, Index]:
    """An index without the texts of a file and without some rows; how many went.

    Raises:
        GraphwrightError: as `Index.delete`, or of the file.
    """
    index = Index(directory)
    texts = texts_of(path, column, console.say) if path is not None else ()
    return index.delete(texts, rows), index


def ask(
    directory: str, questions: list[str], bundle: str | None, k: int, threads: int | None
) -> list[list[Hit]]:
    """The k best texts for each question.

    Args:
        bundle: that the index was built with; where it was then by default.

    Raises:
        BundleError: no index, no bundle, or another one than it was built with.
    """
    if not all(question.strip() for question in questions):
        raise InputError("a query is empty: write what to look for")
    index = Index(directory, threads)
    try:
        return index.ask(bundle or index.record.bundle, questions, k)
    except BundleError as error:
        if bundle is None and "there is no directory" in str(error):
            raise BundleError(
                f"the bundle that {directory} was built with is no longer at {index.record.bundle}: "
                "say where it is with --bundle"
            ) from error
        raise


def said(index: Index) -> list[str]:
    """What was written, in lines."""
    found, recall = index.to_json(), index.record.recall
    lines = [
        f"{found['directory']}: {found['rows']} texts, {found['dims']} dimensions, {found['kind']}",
        f"{recall['metric']} {recall['value']:.3f} of exact search, over {recall['queries']} of its texts "
        f"(standard error {recall['error']:.3f})"
        + ("" if index.record.kind == "float32" else f"; {index.record.effort} candidates a result"),
    ]
    if recall["value"] < recall["goal"]:
        lines.append(f"the goal of {recall['goal']:g} was not reached")
    if cut := recall.get("truncation"):
        lines.append(
            f"{cut['dims']} of {cut['of']} dimensions: {recall['metric']} {cut['recall']:.3f} of all"
        )
    return lines


def lines(questions: list[str], found: list[list[Hit]]) -> list[str]:
    """A line a text: its score, its row and the text; the question above where there are several."""
    shown = []
    for question, hits in zip(questions, found, strict=True):
        shown += [question] if len(questions) > 1 else []
        shown += [f"{hit.score:7.4f}  {hit.row:>7}  {' '.join(hit.text.split())}" for hit in hits]
    return shown
