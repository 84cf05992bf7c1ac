"""When a pass fails, everything needed to see it fail again."""

from __future__ import annotations

from pathlib import Path
from traceback import format_exception

from ...ir.program import Program
from .contract import Context, Pass, Step
from .instruments import Instrument


class Reproducer(Instrument):
    """Writes a directory for the first pass that is rolled back.

    model.onnx (weights beside it) or model.pt2 is the program that the pass was given, pipeline.txt the pass,
    error.txt its traceback, README.md says how to run it again.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.whole = ""
        self.written = False

    def begin(self, pipeline: str, program: Program, context: Context) -> None:
        self.whole, self.written = pipeline, False

    def after(self, pass_: Pass, step: Step, before: Program, after: Program, context: Context) -> None:
        if step.error is None or step.status != "rolled back" or self.written:
            return
        self.written = True
        self.directory.mkdir(parents=True, exist_ok=True)
        model = write_model(before, self.directory)
        (self.directory / "pipeline.txt").write_text(f"{step.text}\n", encoding="utf-8")
        (self.directory / "error.txt").write_text("".join(format_exception(step.error)), encoding="utf-8")
        readme = (
            f"# {pass_.name}: {step.error}\n\n"
            f"    optimize {model.name} -o out --pipeline '{step.text}' --seed {context.seed}\n\n"
            f"{model.name} is the program as this pass was given it, in the pipeline\n\n    {self.whole}\n"
        )
        (self.directory / "README.md").write_text(readme, encoding="utf-8")


def write_model(program: Program, directory: Path) -> Path:
    """The program's graph as model.onnx with its weights in model.onnx.data, or as model.pt2."""
    if program.dialect == "onnx":
        import onnx_ir

        path = directory / "model.onnx"
        onnx_ir.save(program.clone().graph, path, external_data="model.onnx.data")
        return path
    import torch

    from ...ir.fx.lifted import lifted

    path = directory / "model.pt2"
    torch.export.save(lifted(program.clone().graph, program.inputs, program.symbols), path)
    return path
