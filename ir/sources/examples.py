"""An example for a model from transformers: of the inputs that its configuration and its processor describe,
those that the model itself computes with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CaptureError
from ..host.quiet import quiet
from .inputs import DECODER_LENGTH, LENGTH, Example, Maker
from .processor import processor

_LENGTHS, _LONGEST = re.compile(r"seq(uence)?_len(gth)?$|positions?(_embeddings)?$"), 4096


def example_inputs(
    model: nn.Module, directory: Path, length: int = LENGTH, decoder_length: int = DECODER_LENGTH
) -> Example:
    """The fullest set of inputs that the model computes something of, sized so that no two axes that may
    differ are equal.

    Args:
        model: from transformers. directory: where its processor is described. length: of its texts.

    Raises:
        CaptureError: forward takes something that neither describes, or can't compute with what they do.
    """
    maker = Maker(model, processor(directory), length, decoder_length)
    said, wanted = "", dict[str, None]()
    for example in maker.examples():
        refused = _tried(model, example.tensors | example.constants)
        if not refused:
            lacking = [name for name in wanted if name not in example.tensors]
            example.left = [
                f"'{name}' is left out, as the model can't compute with it: {said}" for name in lacking
            ]
            return example
        said, wanted = said or refused, wanted or dict.fromkeys(example.tensors)
    if said:
        raise CaptureError(
            f"{type(model).__name__} can't compute with inputs made from its configuration: {said}"
        )
    raise CaptureError(
        f"{type(model).__name__} takes {', '.join(maker.takes)}, none of which its configuration describes: "
        "load it yourself and give example inputs."
    )


def first_example(model: Any, directory: Path) -> Example:
    """`example_inputs` of the usual length, or where the model doesn't take that, of one that its
    configuration states.

    Raises:
        CaptureError: it takes none of them.
    """
    try:
        return example_inputs(model, directory)
    except CaptureError as error:
        settings = model.config.to_dict()
        stated = {v for name, v in settings.items() if _LENGTHS.search(name) and isinstance(v, int)}
        for length in sorted(value for value in stated if DECODER_LENGTH < value <= _LONGEST):
            try:
                example = example_inputs(model, directory, length, length)
            except CaptureError:
                continue
            for name in [n for n, axes in example.axes.items() if "length" in axes]:
                example.why[name] = "the model takes no other length"
                example.axes[name] = tuple(length if a == "length" else a for a in example.axes[name])
            return example
        raise error


def _tried(model: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """What the model says of inputs that it can't take; empty where it computes."""
    try:
        with quiet(), torch.no_grad():
            model(**tensors)
    except Exception as error:  # whatever a model's own code raises
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    return ""
