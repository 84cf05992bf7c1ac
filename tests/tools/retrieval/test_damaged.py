"""An index that was changed by anybody else is refused, whatever was changed."""

import json
import shutil

import pytest
from graphwright import BundleError, Index
from graphwright.tools.retrieval.record import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_is_looked_at(indexes, tmp_path, kind):
    folder = shutil.copytree(indexes[kind].directory, tmp_path / "index")
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            with pytest.raises(BundleError, match=path.name):
                Index(folder)
        path.write_bytes(content[:-1])
        with pytest.raises(BundleError, match=path.name):
            Index(folder)
        path.unlink()
        with pytest.raises(BundleError, match=path.name):
            Index(folder)
        path.write_bytes(content)
    assert len(Index(folder)) == 400


def resealed(folder, change):
    """The record with a change that carries the right hash of itself."""
    from graphwright.backends.bundles.manifest import sealed

    path = folder / "index.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_bytes(sealed(found))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r.update(format=4), "index format 4 .* reads up to 3"),
        (lambda r: r.update(format=2), "index format 2 of an older graphwright: build the index again"),
        (lambda r: r.update(generation=-1), "-1 where a whole number"),
        (lambda r: r.update(generation=1), "codes.u8.1 is missing|vectors.f32.1 is missing"),
        (lambda r: r.update(kind="flat"), "'flat' where one of float32"),
        (lambda r: r.update(dims=10**9), "1000000000 where a whole number"),
        (lambda r: r.update(dims=8), "don't have the bytes of their rows"),
        (lambda r: r.update(chunks=[]), "its sizes don't agree"),
        (lambda r: r["chunks"][0].update(rows=399), "don't have the bytes of their rows"),
        (lambda r: r["whole"].clear(), "lacks a file"),
        (lambda r: r["whole"].update({"../x": {"bytes": 1, "sha256": ""}}), "one too many"),
        (lambda r: r.pop("effort"), "KeyError"),
        (lambda r: r.update(longest=float("inf")), "None where a number"),
    ],
)
def test_a_record_that_lies_is_refused(indexes, tmp_path, change, sentence):
    folder = shutil.copytree(indexes["int8"].directory, tmp_path / "index")
    resealed(folder, change)
    with pytest.raises(BundleError, match=sentence):
        Index(folder)


def test_what_is_no_index_is_refused(bundle, tmp_path):
    for place in (bundle, tmp_path, tmp_path / "none"):
        with pytest.raises(BundleError, match=r"has no index.json: an index is what"):
            Index(place)
    with pytest.raises(BundleError, match="an index is a directory, not None"):
        Index(None)


def test_an_index_makes_room_only_when_told(bundle, tmp_path):
    index = Index.build(bundle, ["a"], tmp_path / "index")
    with pytest.raises(BundleError, match="exists already"):
        Index.build(bundle, ["b"], tmp_path / "index")
    assert index.text(0) == "a"
    assert Index.build(bundle, ["b"], tmp_path / "index", force=True).text(0) == "b"
    with pytest.raises(BundleError, match=r"holds no index.json, so --force"):
        Index.build(bundle, ["b"], bundle, force=True)
