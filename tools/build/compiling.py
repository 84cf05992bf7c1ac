"""What the tvm backend needs of a run: programs compiled at the run's sizes, each once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...backends import processor
from ...backends.bundles.record import Padding
from ...backends.measuring.workloads import Workload, fitting
from ...backends.target import Target
from ...backends.tvm.backend import Tvm
from ...backends.tvm.build.padding import padding_of
from ...backends.tvm.build.sizes import covering, longest_text
from ...backends.tvm.machine.llvm_target import llvm_target, needs
from ...backends.tvm.run.artifact import TvmArtifact, write_compiled
from ...ir.errors import BundleError
from ...ir.host.temporary import TemporaryFolder
from ...ir.program import Program
from ...passes.manager.contract import Feed
from ..console import Console


class Compiler:
    """Compiles programs for a target, and keeps what it compiled.

    Args:
        plain: any of the programs; all have its inputs and outputs, but for a memory.
        workloads: calls to compile for.
        feeds: further calls that must run even where nothing can be padded.
    """

    def __init__(
        self,
        plain: Program,
        target: Target,
        threads: int,
        workloads: Sequence[Workload],
        feeds: Sequence[Feed],
        console: Console,
    ) -> None:
        self.plain, self.target, self.threads, self.console = plain, target, threads, console
        self.padding = padding_of(plain)
        self._calls = [workload.feed for workload in workloads]
        self._calls += [] if self.padding.length else feeds
        self.sizes = covering(plain, self.padding, self._calls)
        self._artifacts: dict[str, TvmArtifact] = {}
        self._scratch = TemporaryFolder()

    def cut(self) -> str:
        """Which texts are longer than anything compiled, and the mend; empty where none can be."""
        length = self.padding.length
        most = max(sizes[length] for sizes in self.sizes) if length else 0
        if not length or most >= longest_text(self.plain, self.padding):
            return ""
        return (
            f"texts of more than {most} tokens are cut there; for longer ones name a shape, as 1x{2 * most}"
        )

    def __call__(self, program: Program) -> TvmArtifact:
        """The program compiled, now or before.

        Raises:
            BackendError: TVM is missing, or lacks an operator.
        """
        key = program.fingerprint()
        if key not in self._artifacts:
            sizes, padding = self._planned(program)
            self.console.say(f"Compiling {len(sizes)} sizes for {self.target.name}")
            self.console.progress("compiling")
            self._artifacts[key] = Tvm().build(
                program, self.target, self.threads, buckets=sizes, padding=padding
            )
        return self._artifacts[key]

    def _planned(self, program: Program) -> tuple[list[dict[str, int]], Padding]:
        """The sizes that a program is compiled at, and how calls are padded to them: its own where it has a
        memory that the others lack."""
        if program.outputs == self.plain.outputs:
            return self.sizes, self.padding
        padding = padding_of(program)
        return covering(program, padding, [fitting(feed, [program]) for feed in self._calls]), padding

    def contestant(self, program: Program) -> tuple[str, Path]:
        """The kind and path of the compiled program, as measuring takes them."""
        folder = Path(self._scratch.name, program.fingerprint())
        if not folder.exists():
            write_compiled(folder, self(program))
        return "bundle", folder

    def runs_here(self) -> bool:
        """Whether this machine can run what is compiled for the target."""
        try:
            processor.check(self.target.arch, needs(llvm_target(self.target, self.threads)))
        except BundleError:
            return False
        return True

    def close(self) -> None:
        """Remove the temporary files."""
        self._scratch.cleanup()
