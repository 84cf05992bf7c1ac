"""The tvm backend: a program as functions compiled for one processor, at a few sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...ir.errors import BackendError
from ...ir.host.temporary import TemporaryFolder
from ...ir.onnx.graph import subgraphs
from ...ir.program import Program
from ..base import Backend
from ..bundles.record import MODULE, WEIGHTS, Compiled, Function, Padding
from ..measuring.workloads import workloads
from ..target import Target, detect
from .build.sizes import covering
from .machine.link import link, linker
from .machine.llvm_target import needs
from .run import versions
from .run.artifact import TvmArtifact
from .run.library import compiler
from .run.weights_file import write


def ready(target: Target, program: Program | None = None) -> None:
    """Refuse early what `build` would refuse after all the work.

    Raises:
        BackendError: TVM is missing or of another version, nothing links for the target, or the program has
            bodies, which no pass takes away.
    """
    versions.check()
    linker(target.arch)
    for node in program.graph.graph if program is not None and program.dialect == "onnx" else ():
        if any(subgraphs(node)):
            raise BackendError(
                f"TVM compiles no {node.op_type} (at '{node.outputs[0].name}'): "
                "build it for ONNX Runtime (--backend onnxruntime)"
            )


class Tvm(Backend):
    """Compiles programs of both dialects with TVM, by this package's own kernels and schedules."""

    name = "tvm"

    def build(
        self,
        program: Program,
        target: Target | None = None,
        threads: int = 2,
        *,
        buckets: Sequence[Mapping[str, int]] = (),
        padding: Padding | None = None,
    ) -> TvmArtifact:
        """Functions over one copy of the weights.

        Args:
            program: of either dialect.
            target: to compile for; None is this machine.
            threads: of a call.
            buckets: the sizes to compile at, of every symbol of the program's inputs: calls of other sizes
                are padded to them, or split. Without any, those of the usual workloads.
            padding: what `padding_of` found for this program, where that is known.

        Raises:
            BackendError: TVM is missing or of another version, lacks an operator, or nothing links here for
                the target.
        """
        compiler()
        from .build.compile import compile_buckets
        from .build.padding import padding_of

        target = target or detect()
        padding = padding or padding_of(program, next(iter(buckets), None))
        sizes = buckets or covering(program, padding, (each.feed for each in workloads(program)))
        built = compile_buckets(program, target, threads, sizes)
        folder = TemporaryFolder()
        try:
            link(built.executable, Path(folder.name, MODULE), target.arch)
            places = write(Path(folder.name, WEIGHTS), built.weights)
        except OSError as error:
            raise BackendError(
                f"cannot write compiled functions to {tempfile.gettempdir()} ({error.strerror}): "
                "make room there, or set TMPDIR to a directory on a larger disk"
            ) from error
        functions = tuple(Function(b.sizes, b.function, b.weights, b.mask) for b in built.buckets)
        compiled = Compiled(target.arch, needs(built.target, built.tiles), places, functions, padding)
        return TvmArtifact(program, compiled, folder, threads)
