"""`optimize passes NAME --on MODEL`: what a pass rewrites in a model, by name, and what it leaves and why."""

from __future__ import annotations

from ...backends.target import detect
from ...ir.capture import capture
from ...ir.errors import PipelineError
from ...passes.manager.contract import Context, Step
from ...passes.manager.pipeline import Pipeline
from ..console import Console


def tried(text: str, model: str, console: Console) -> Step:
    """What came of a pass on a model as it is captured; lowered first where the pass works on ONNX.

    Args:
        text: the pass, with its options, as pipeline text.

    Raises:
        PipelineError: it is no single pass, or can't work on this model.
        CaptureError: the model can't be captured.
    """
    pipeline = Pipeline.parse(text)
    if len(pipeline.passes) != 1:
        raise PipelineError(f"name one pass to try, not {len(pipeline.passes)}")
    program = capture(model)
    if program.dialect == "fx" and pipeline.passes[0].source == "onnx":
        pipeline = Pipeline.parse(f"to-onnx,{text}")
    run = pipeline.run(program, Context(target=detect(), progress=console.progress))
    return run.steps[-1]


def described(step: Step) -> str:
    """The step in lines: what came of it, each rewrite, and each note."""
    head = f"{step.text}: {step.failure or step.status}"
    counted = [f"  {step.counted}"] if step.statistics else []
    rewrites = [f"  {name}" for name in step.rewrites]
    titled = ["rewrites:", *rewrites] if rewrites else []
    notes = ["notes:", *(f"  {note}" for note in step.notes)] if step.notes else []
    return "\n".join([head, *counted, *titled, *notes])
