"""What every fusion is held to, whatever it fuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context, Pass, Result


def fused(
    pass_: Pass,
    program: Program,
    tolerance: float,
    feeds: Sequence[Mapping[str, np.ndarray]] | None = None,
    thorough: bool = True,
) -> Result:
    """Run a fusion and assert that outputs stay, that it says truly whether it changed anything, that it
    leaves its input alone, that two runs give the same bytes, and that a second run finds nothing to do.

    Args:
        tolerance: absolute, on outputs scaled by max(1, |reference|). NaN must stay NaN or become a number.
        feeds: probe inputs if None.
        thorough: False leaves out the second run and the one whose every rewrite is refused.
    """
    before = program.fingerprint()
    result = pass_.run(program.clone(), Context())
    assert program.fingerprint() == before
    assert (result.program.fingerprint() != before) == result.modified, result.notes
    again = pass_.run(result.program.clone(), Context())
    assert not again.modified, again.statistics
    if result.modified:
        same(program, result.program, tolerance, feeds)
    if thorough:
        twin = pass_.run(program.clone(), Context())
        assert _bytes(result.program) == _bytes(twin.program)
        refused = pass_.run(program.clone(), Context(allow=lambda rewrite: False))
        assert not refused.modified
        assert refused.program.fingerprint() == before
    return result


def same(
    before: Program, after: Program, tolerance: float, feeds: Sequence[Mapping[str, np.ndarray]] | None = None
) -> None:
    """Assert that two programs give the same outputs."""
    feeds = probes(before, 3) if feeds is None else feeds
    for expected, found in zip(execute(before, feeds), execute(after, feeds), strict=True):
        for name, reference in expected.items():
            assert found[name].dtype == reference.dtype
            assert found[name].shape == reference.shape
            known = ~np.isnan(reference) if reference.dtype.kind == "f" else np.ones(reference.shape, bool)
            scale = np.maximum(1, np.abs(reference[known]))
            np.testing.assert_allclose(
                found[name][known] / scale, reference[known] / scale, atol=tolerance, rtol=0, err_msg=name
            )


def weights(seed: int = 1, scale: float = 0.3, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Random float32 arrays by name."""
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_normal(shape) * scale).astype(np.float32) for name, shape in shapes.items()}


def _bytes(program: Program) -> bytes:
    return onnx_ir.serde.serialize_model(program.graph).SerializeToString(deterministic=True)
