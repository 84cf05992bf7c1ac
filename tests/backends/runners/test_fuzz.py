"""Fifteen seconds of changed manifests and inputs under AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from graphwright.backends.bundles.bundle import Route, Variant, write
from graphwright.backends.joining.join import join
from graphwright.backends.runners import build as building
from graphwright.backends.target import named
from graphwright.backends.tvm.backend import Tvm

SANITIZED = (
    "-O0",  # half the time of a compilation, and no access that an optimizer would leave out
    "-g1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a compiler with sanitizers")
def test_nothing_is_read_past_its_end(make, tmp_path):
    fuzz = Path(__file__).with_name("fuzz.cpp")
    building.compile_program(tmp_path / "fuzz", ["c++"], [fuzz], SANITIZED)
    routes = [Route("1x8", 1, 8, 0.0, "default"), Route("16x8", 16, 8, 0.5, "other")]
    variants = [Variant(row.graph, make.encoder(make.weights(i))) for i, row in enumerate(routes)]
    write(tmp_path / "onnx", variants, routes, threads=1)
    Tvm().build(make.encoder(), threads=1, buckets=[{"batch": 1, "length": 4}]).save(tmp_path / "tvm")
    builds = {}
    for target in ("x86-64-avx2", "x86-64-vnni", "aarch64-neon", "aarch64-dotprod"):
        record = {"target": named(target).to_json()}
        builds[target] = write(tmp_path / target, variants, routes, manifest=record, threads=1)
    (tmp_path / "several").mkdir()
    join(tmp_path / "several", builds, lambda _: {})
    (tmp_path / "lib").mkdir()
    for name, library in building.runtimes().items():
        (tmp_path / "lib" / name).symlink_to(library)
    libraries = str(tmp_path / "lib")
    environment = {**os.environ, "GRAPHWRIGHT_ONNXRUNTIME": libraries, "GRAPHWRIGHT_TVM": libraries}
    for name, seconds in (("onnx", 5), ("tvm", 5), ("several", 5)):
        line = [tmp_path / "fuzz", tmp_path / name, str(seconds), "1"]
        done = subprocess.run(line, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-4000:]
        loaded, refused, ran, failed = map(int, done.stdout.split())
        assert min(loaded, refused, ran, failed) > 0, name
