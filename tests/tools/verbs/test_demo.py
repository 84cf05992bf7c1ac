"""`optimize demo`, as a newcomer types it: the real command on the real model."""

import json
import shutil
import subprocess
from pathlib import Path
from sys import executable

import graphwright as gw
import numpy as np
import pytest
from graphwright.tools.verbs.demo import model_directory
from sentence_transformers import SentenceTransformer

SENTENCES = ["A man is playing a guitar.", "Somebody plays music.", "Shares fell sharply on Tuesday."]


@pytest.mark.slow
def test_the_demo_makes_a_bundle_that_answers_as_the_model_does(tmp_path):
    command = shutil.which("optimize", path=str(Path(executable).parent))
    done = subprocess.run(
        [command, "demo", "-o", str(tmp_path / "demo"), "--threads", "1", "--quick"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "demo" / "manifest.json").read_text())
    statuses = {step["pass"].partition("{")[0]: step["status"] for step in manifest["steps"]}
    assert statuses["quantize-static"] == "applied"
    assert "rolled back" not in statuses.values()

    layers = json.loads(
        subprocess.run(
            [command, "inspect", "--quant", str(tmp_path / "demo"), "--json"], capture_output=True, text=True
        ).stdout
    )
    assert len(layers) == 36
    assert all(20 < layer["snr"] < 50 and layer["before_us"] > 0 for layer in layers)
    assert {layer["kernel"] for layer in layers} <= {"MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
    assert [layer["snr"] for layer in layers] == sorted(layer["snr"] for layer in layers)
    assert manifest["portability"]["isa"]["x86-64-vnni"] == "right"
    assert len(manifest["portability"]["products"]) == 36

    bundle = gw.load(tmp_path / "demo")
    found = bundle(SENTENCES)
    expected = SentenceTransformer(str(model_directory()), device="cpu").encode(SENTENCES)
    cosines = (found * expected).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert cosines.min() > 0.98
    related, unrelated = found[0] @ found[1], found[0] @ found[2]
    assert related > unrelated + 0.3
