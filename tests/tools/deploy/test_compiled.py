"""Builds for TVM: the same bytes from the lock, for this processor and another; timed on a lent device."""

import pytest
from graphwright.tools.deploy.builds import build

rpc_farm = pytest.importorskip("rpc_farm")
pytest.importorskip("tvm")
KEY = "deployed"


@pytest.mark.slow
def test_a_device_times_the_build_and_the_lock_gives_it_again(model_file, quick, tmp_path):
    with rpc_farm.farm(KEY) as address:
        targets = {
            "lent": {"backend": "tvm", "rpc": address, "device": KEY},
            "arm": {"backend": "tvm", "target": "aarch64-dotprod"},
        }
        deployment = {
            "defaults": {**quick, "preset": "exact"},
            "models": {"m": str(model_file)},
            "targets": targets,
            "goals": {"g": {"require": {"p95": "<=10s", "speedup": ">=0.1"}}},
        }
        results = build(deployment, tmp_path / "dist")
    lent, arm = results.results
    assert (lent.state, arm.state) == ("built", "built"), results.to_json()
    assert lent.facts.where == KEY
    assert lent.facts.calls["1x4"].speedup is None
    assert 0 < lent.facts.calls["1x4"].ms <= lent.facts.calls["1x4"].p95_ms
    assert lent.unmet == ("speedup >=0.1 can't be judged: speedup was not measured at 1x4",)
    assert arm.facts.calls == {}
    assert len(arm.unmet) == 2
    # The tracker is gone: nothing is timed now.
    again = build(deployment, tmp_path / "again", lock=tmp_path / "dist" / "deploy.lock", frozen=True)
    assert [each.state for each in again.results] == ["from the lock"] * 2, again.to_json()
    for name in ("m-lent-g", "m-arm-g"):
        files = sorted((tmp_path / "dist" / name).iterdir())
        assert {"model.so", "model.weights", "manifest.json"} <= {each.name for each in files}
        for file in files:
            assert file.read_bytes() == (tmp_path / "again" / name / file.name).read_bytes(), file
