"""The options of a run, a row each: what the command takes for each setting of `RunConfig`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer


def _text(help: str, *flags: str, **more: Any) -> Any:
    return Annotated[str | None, typer.Option(*flags, help=help, show_default=False, **more)]


def _whole(help: str) -> Any:
    return Annotated[int | None, typer.Option(help=help, show_default=False)]


def _flag(name: str, help: str) -> Any:
    return Annotated[bool, typer.Option(f"--{name}", help=help)]


def _columns(text: str | None) -> str | None:
    if text is not None and not all("=" in part for part in text.split(",")):
        raise typer.BadParameter("write --columns as role=column, as in text=review,label=stars")
    return text


OPTIONS: dict[str, Any] = {
    "out": _text("directory for the bundle", "-o", "--out"),
    "preset": _text("exact, bfloat16, balanced, fast or small; balanced by default"),
    "pipeline": _text("passes in order, instead of a preset"),
    "data": _text("csv, tsv, jsonl, json or txt file to judge quality on"),
    "calibrate": _text("such a file of texts to calibrate and train on; some rows of the data by default"),
    "task": _text(
        "classification, similarity, token-classification, perplexity, retrieval, rerank or fidelity"
    ),
    "columns": _text("of the data file, as in text=review,label=stars", callback=_columns),
    "samples": _whole("rows used at most; 2000 by default"),
    "max_drop": Annotated[
        float | None, typer.Option(help="points of quality that may be lost", show_default=False)
    ],
    "threads": _whole("threads to run and measure with; all cores by default"),
    "shapes": _text(
        "workloads: batch x length (of the cache, for a decoder's step), or unequal sentences, as in "
        "1x128,8x128,mixed:32"
    ),
    "seed": _whole("of everything random; 0 by default"),
    "target": _text("hardware to build for, as `optimize targets` lists it; this machine by default"),
    "backend": _text("onnxruntime, tvm, or auto: the faster of both; onnxruntime by default"),
    "model_type": _text(
        "what transformers calls a directory's model (bert), where its config.json doesn't say"
    ),
    "dump": _text("directory for the graph's text after every pass, and what each changed"),
    "reproduce": _text("directory for what it takes to see a failed pass fail again"),
    "bisect": _flag("bisect", "find the one rewrite that a pass is rolled back for"),
    "keep_going": _flag("keep-going", "exit with 0 although a pass was rolled back or refused"),
    "quick": _flag("quick", "a first look: two shapes, few rounds, no pass timed by itself, no PyTorch"),
    "force": _flag("force", "replace an earlier bundle at OUT"),
}


def taking(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a verb options of this table, as keywords; one that was not given is None, or False."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function, eval_str=True)
        *own, console, _ = signature.parameters.values()
        kind = inspect.Parameter.KEYWORD_ONLY
        options = [
            inspect.Parameter(name, kind, default=False if OPTIONS[name].__origin__ is bool else None,
                              annotation=OPTIONS[name])
            for name in names
        ]  # fmt: skip
        function.__signature__ = signature.replace(parameters=[*own, *options, console])  # type: ignore[attr-defined]
        return function

    return wrap


def settings(given: dict[str, Any]) -> dict[str, Any]:
    """What was given, keyed as in the file of a run."""
    chosen = {name: value for name, value in given.items() if value is not None and value is not False}
    return {name.replace("_", "-"): value for name, value in chosen.items()}
