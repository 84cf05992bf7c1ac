"""The lock reads back as it was written, and whatever else is refused in a sentence."""

import json

import numpy as np
import pytest
from graphwright.ir.errors import ConfigError
from graphwright.passes.quantize.codes.affine import Affine, fit
from graphwright.passes.quantize.int8.rewrite import Static
from graphwright.tools.deploy import coded, lock
from graphwright.tools.deploy.facts import Call, Facts
from graphwright.tools.deploy.lock import Decisions, Entry

FACTS = Facts(7, None, "", "ONNX Runtime", "here", {"1x4": Call(1.0, (0.9, 1.1), 1.5, 2.0, (1.9, 2.1))})


@pytest.fixture
def entry():
    decisions = Decisions(
        {"a b 1x4 1": (1.5, 1.4, 1.6)}, ([{"tuple": ["t", 1]}, "token"],), {"tvm/t.jsonl": "{}\n"}
    )
    files = {"model.onnx": {"sha256": "0" * 64, "bytes": 7}}
    manifest = json.dumps({"files": files, "é": "\n"}).encode()
    versions = {"onnx": "1"}
    return Entry({"model": "m"}, {"m": "f" * 64}, versions, {"name": "host"}, "e" * 64, FACTS, decisions,
                 manifest, b"# r\xc3\xa9port\n", 3, ("it is late",))  # fmt: skip


def test_what_is_written_reads_back(entry, tmp_path):
    path = tmp_path / "new" / "deploy.lock"
    lock.write(path, {"b": entry, "a": entry})
    assert lock.read(path) == {"a": entry, "b": entry}
    first = path.read_bytes()
    lock.write(path, {"a": entry, "b": entry})
    assert path.read_bytes() == first
    assert [each.name for each in path.parent.iterdir()] == ["deploy.lock"]
    assert entry.record["files"]["model.onnx"]["bytes"] == 7


def test_no_lock_is_an_empty_one(tmp_path):
    assert lock.read(tmp_path / "absent.lock") == {}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda told: [],
        lambda told: {**told, "builds": 3},
        lambda told: {**told, "builds": {"a": {}}},
        lambda told: {**told, "builds": {"a": {**told["builds"]["a"], "manifest": "!"}}},
        lambda told: {**told, "builds": {"a": {**told["builds"]["a"], "manifest": "AAAA"}}},
        lambda told: {**told, "builds": {"a": {**told["builds"]["a"], "facts": {"size": "x"}}}},
        lambda told: {**told, "format": 99},
    ],
)
def test_what_is_no_lock_is_refused_in_a_sentence(entry, tmp_path, spoil):
    path = tmp_path / "deploy.lock"
    lock.write(path, {"a": entry})
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    with pytest.raises(ConfigError) as caught:
        lock.read(path)
    assert str(path) in str(caught.value)


def test_choices_of_passes_read_back_with_their_types():
    mapping = fit(-1.25, 3.1, 0, 255)
    chosen = {
        ("text", ("w", "v"), 1): ("static", mapping, Static({}, "kernels", False)),
        "list": [1, 2.5, None, True, {"a": np.float32(0.1)}],
    }
    again = coded.decoded(json.loads(json.dumps(coded.encoded(chosen))))
    assert list(again) == list(chosen)
    rung, found, static = again["text", ("w", "v"), 1]
    assert (rung, static) == ("static", Static({}, "kernels", False))
    assert isinstance(found, Affine)
    for name in ("scale", "zero"):
        ours, theirs = getattr(found, name), getattr(mapping, name)
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    number = again["list"][4]["a"]
    assert type(number) is np.float32
    assert number == np.float32(0.1)


def test_what_is_large_or_has_no_spelling_is_left_out():
    chosen = {"large": np.zeros(1 << 16), "strange": object(), "kept": 1, "texts": np.array(["a"])}
    assert coded.decoded(coded.encoded(chosen)) == {"kept": 1}


@pytest.mark.parametrize(
    "value",
    [
        {"object": ["os", "system", {}]},
        {"object": ["passes.manager.registry", "names", {}]},
        {"object": ["passes..tools.cli", "main", {}]},
        {"object": ["passes.quantize.codes.affine", "Affine", {"command": 1}]},
        {"array": ["|O", [1], "AAAAAAAAAAA="]},
        {"what": 1},
        [],
    ],
)
def test_a_lock_makes_no_other_objects_than_choices(value):
    with pytest.raises(ConfigError, match="decisions can't be read"):
        coded.decoded([["key", value]])
