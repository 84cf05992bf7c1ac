"""The onnxruntime backend: a program of the onnx dialect as a session."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import BackendError
from ...ir.footprint import weight_bytes
from ...ir.host.temporary import TemporaryFolder
from ...ir.inputs.memory import remembering
from ...ir.program import Program
from ..base import Backend
from ..bundles.feeds import check
from ..bundles.onnx_file import LIMIT, WeightFile, write_external, write_inline
from ..target import Target
from .session import CPU, open_session, run_session


class OnnxRuntime(Backend):
    """Lowers onnx programs to ONNX Runtime sessions.

    One instance keeps the weights of everything it built in one scratch file, equal tensors once, so that
    building many variants of a large program writes only what differs. The file goes with the instance.
    """

    name = "onnxruntime"

    def __init__(self, target: Target | None = None) -> None:
        """target: whose sums of integers are to be seen, where this machine's saturate."""
        self.scratch: Scratch | None = None
        self._exact = target is not None and not target.saturates

    def build(
        self,
        program: Program,
        target: Target | None = None,
        threads: int = 2,
        *,
        providers: Sequence[str] = CPU,
        prepack: bool = True,
    ) -> OrtArtifact:
        """A session over the program.

        Args:
            program: of the onnx dialect.
            target: unused: ONNX Runtime looks at the machine itself.
            threads: intra-op threads.
            providers: execution providers in order of preference.
            prepack: False saves a second copy of the matrices, at the price of speed (for verifying).

        Raises:
            BackendError: the program is not of the onnx dialect, ONNX Runtime refuses the graph, or the
                installed package doesn't offer a provider.
        """
        if program.dialect != "onnx":
            raise BackendError(
                f"onnxruntime runs the onnx dialect and this program is {program.dialect}: run to-onnx first"
            )
        try:
            self.scratch = self.scratch or Scratch()
            model = self.scratch.save(program)
        except OSError as error:
            raise BackendError(
                f"cannot write the graph to {tempfile.gettempdir()} ({error.strerror}): "
                "make room there, or set TMPDIR to a directory on a larger disk"
            ) from error
        source = program.info.get("source")
        called = f"the graph of '{source}'" if source else "the graph"
        return OrtArtifact(
            program, open_session(model, threads, providers, prepack, called, exact=self._exact)
        )


class OrtArtifact:
    """A session and the program it was made from."""

    def __init__(self, program: Program, session: Any) -> None:
        self.program = program
        self.session = session

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.program.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.program.outputs

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. Raises InputError naming the input that is missing or does not fit."""
        feed = remembering(self.program.inputs, feed)
        check(self.program.inputs, self.program.symbols, feed)
        return dict(zip(self.program.outputs, run_session(self.session, dict(feed)), strict=True))

    def save(self, directory: Path) -> None:
        """Write model.onnx, with its weights in model.onnx.data where they exceed protobuf's 2 GB."""
        save_model(self.program, Path(directory) / "model.onnx")


def save_model(program: Program, path: Path) -> None:
    """Write an onnx program to one file, or two (`path` and `path`.data) from 2 GB on."""
    if weight_bytes(program) < LIMIT:
        write_inline(program.graph, path)
        return
    with WeightFile(path.with_name(path.name + ".data")) as weights:
        write_external(program.graph, path, weights)


class Scratch:
    """A temporary directory of graphs over one weights file, removed with the object or at exit."""

    def __init__(self) -> None:
        self._folder = TemporaryFolder()
        self.folder = Path(self._folder.name)
        self._weights = WeightFile(self.folder / "weights.data")
        self._count = 0
        weakref.finalize(self, self._weights.close)

    def save(self, program: Program) -> Path:
        """The path of the program's graph; its weights are shared with everything saved before."""
        self._count += 1
        path = self.folder / f"{self._count}.onnx"
        write_external(program.graph, path, self._weights)
        return path

    def close(self) -> None:
        """Remove everything now."""
        self._weights.close()
        self._folder.cleanup()
