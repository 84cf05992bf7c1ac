"""A Hugging Face directory, traced with the task head that its configuration records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CaptureError
from ..fx.export import Axes
from ..fx.outputs import flattened
from ..program import Program, Task
from .attempts import attempted
from .checkpoint import Loaded, load
from .eager import AGREE, REFUSALS, apart
from .inputs import Example
from .module import from_module


def from_directory(directory: Path, task: Task | None, attn: str | None, kind: str | None = None) -> Program:
    """Captures a Hugging Face checkpoint.

    Weights are read in float32. The pooler that plain encoders carry for next-sentence prediction is left
    out.

    Args:
        directory: config.json, safetensors (or a pytorch_model.bin that weights_only loading accepts) and,
            where there is one, the tokenizer's files.
        task: instead of the one that the configuration records.
        attn: "sdpa" or "eager"; by default what transformers chooses.
        kind: transformers' type of the model, where config.json doesn't say.

    Raises:
        CaptureError: nothing to load, a broken file, remote code, or weights missing from the checkpoint.
    """
    loaded = load(directory, task, attn, kind)
    model, info = loaded.model, loaded.info

    def trace(tensors: dict[str, Tensor], axes: Axes) -> Program:
        return from_module(model, tensors, loaded.task, info, axes)

    program = finish(attempted(model, directory, loaded.inputs, trace), loaded)
    if note := of_padding(model, loaded.inputs):
        program = replace(program, info={**program.info, "notes": [*program.info.get("notes", ()), note]})
    return program


def finish(program: Program, loaded: Loaded, prefix: str = "") -> Program:
    """Checks that every weight in the graph came from the checkpoint; adds the tokenizer and the lengths.

    prefix: where the checkpoint's model stands inside the traced module.
    """
    graph = program.graph
    held = [*graph.named_parameters(remove_duplicate=False), *graph.named_buffers(remove_duplicate=False)]
    missing = sorted(name for name, _ in held if name.removeprefix(prefix) in loaded.missing)
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise CaptureError(
            f"the checkpoint has no {shown}: transformers would make up random ones; "
            "give a checkpoint fine-tuned for this task, or another task."
        )
    symbols, info = dict(program.symbols), dict(program.info)
    # What a pooler for next-sentence prediction computes is left out by design.
    others = {name.partition(".")[0] for name in info.get("unused_weights", ()) if "pooler" not in name}
    if others:
        kept = f"the checkpoint also holds {', '.join(sorted(others))}, which this model doesn't use."
        info["notes"] = [*info.get("notes", ()), kept]
    positions = info.pop("max_positions", None)
    # Of samples or pixels, what a configuration says of positions says nothing.
    if any("length" in spec.shape for spec in program.inputs if spec.name == "input_ids"):
        low, high = symbols["length"]
        if positions is not None and positions < high:
            high = positions
            sizes = dict(info.get("sizes", {}))
            reasons = {**sizes.get("reasons", {}), "length": f"config.json states {high} positions"}
            info["sizes"] = {**sizes, "reasons": reasons}
        symbols["length"] = (low, high)
        info["max_length"] = min(high, info.get("max_length", high))
    return replace(program, symbols=symbols, info=info, tokenizer=loaded.tokenizer)


def of_padding(model: Any, example: Example) -> str:
    """A note where the model's default call, over a cache, gives other outputs than without for a decoder's
    ids that are padding; empty where it doesn't, or has no cache, or is told by a mask."""
    tensors = {name: tensor.clone() for name, tensor in example.tensors.items()}
    if "decoder_input_ids" not in tensors or "decoder_attention_mask" in tensors:
        return ""
    try:
        pad = model.config.get_text_config(decoder=True).pad_token_id
        tensors["decoder_input_ids"][:, 0] = pad
        with torch.no_grad():
            with_cache, without = (
                flattened(model(**tensors, use_cache=each).to_tuple()[0])[0][0][1] for each in (True, False)
            )
    except REFUSALS:
        return ""
    if with_cache.shape != without.shape or apart(with_cache[:, 1:], without[:, 1:]) <= AGREE:
        return ""
    return (
        f"{type(model).__name__} hides padding tokens where it has no cache, as here, and not in its default "
        "call: give a decoder_attention_mask there, and the two agree."
    )
