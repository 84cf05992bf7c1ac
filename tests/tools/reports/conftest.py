"""A bundle with something in every section of its page, built once; and its record."""

import json

import graphwright as gw
import pytest


@pytest.fixture(scope="session")
def built(encoder_directory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    texts = [f"{'the big red cat eats a film ' * (1 + row % 5)},{row % 2}" for row in range(80)]
    (folder / "data.csv").write_text("\n".join(["text,label", *texts]))
    (folder / "rows.csv").write_text("\n".join(["text", *(line.partition(",")[0] for line in texts)]))
    outcome = gw.optimize(
        encoder_directory,
        folder / "bundle",
        pipeline="to-onnx,fold-constants,fuse-attention,quantize-weights{bits=8,group=32}",
        data=folder / "rows.csv",
        task="fidelity",
        shapes="1x8,mixed:4",
        threads=1,
    )
    return outcome, folder / "bundle"


@pytest.fixture(scope="session")
def record(built):
    return json.loads((built[1] / "manifest.json").read_text("utf-8"))
