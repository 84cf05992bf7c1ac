"""Where the time goes: every kernel in a block, blocks alike before and after."""

import json

import graphwright as gw


def test_fused_and_quantized_blocks_are_told(encoder_directory, tmp_path):
    out = tmp_path / "out"
    pipeline = "to-onnx,fold-constants,fuse-attention,quantize-weights{bits=8,group=32}"
    gw.optimize(encoder_directory, out, pipeline=pipeline, shapes="1x8", threads=1, quick=True)
    found = json.loads((out / "manifest.json").read_text())["profile"]
    assert found["workload"] == "1x8"
    before, after = ({part["block"]: part["ms"] for part in found[when]} for when in ("before", "after"))
    wanted = {f"{kind} {number}" for kind in ("attention", "feed_forward") for number in (0, 1)}
    assert wanted <= before.keys()
    assert wanted <= after.keys()
    assert all(ms > 0 for ms in after.values())
    assert sum(after[block] for block in after if block) > after.get("", 0)


def test_the_export_itself_is_not_compared_with_itself(encoder_directory, tmp_path):
    outcome = gw.optimize(
        encoder_directory, tmp_path / "out", pipeline="to-onnx", shapes="1x4", threads=1, quick=True
    )
    assert outcome.unrewritten == ["1x4"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["profile"] is None
