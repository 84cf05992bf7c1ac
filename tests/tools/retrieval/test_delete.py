"""Texts deleted from an index: it is as one without them, or, where the deletion is killed, as it was."""

import multiprocessing
import shutil

import lettered
import numpy as np
import pytest
from graphwright import BundleError, Index, InputError
from graphwright.tools.retrieval import deleting, store, vectors
from graphwright.tools.retrieval.recall import GOALS
from graphwright.tools.retrieval.record import KINDS
from killed import dying


@pytest.mark.parametrize("kind", KINDS)
def test_what_stays_is_found_as_if_the_rest_had_never_been(
    bundle, texts, weights, tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(deleting, "BLOCK", 64)
    monkeypatch.setattr(vectors, "BLOCK", 64)
    index = Index.build(bundle, texts[:300], tmp_path / "index", kind)
    index.append(bundle, texts[300:])
    named = {texts[5], texts[320]}
    rows = [0, 7, np.int64(399)]
    left = [text for row, text in enumerate(texts) if text not in named and row not in rows]
    assert index.delete(iter(named), rows) == len(texts) - len(left)
    whole = Index.build(bundle, left, tmp_path / "whole")
    queries = lettered.vectors(["z z", "a b", "e f g"], weights)
    for each in (index, Index(index.directory)):
        assert [each.text(row) for row in range(len(each))] == left
        for found, expected in zip(
            each.search(queries, 5, effort=400), whole.search(queries, 5), strict=True
        ):
            assert found.tolist() == expected.tolist()
        recall = each.record.recall
        assert (recall["rows"], recall["goal"]) == (len(left), GOALS[kind])
        assert recall["value"] == recall["by_effort"][str(each.record.effort)] >= recall["goal"]
        if each._searcher._coder is not None:  # which a search with every row as a candidate doesn't feel
            codes = each._searcher._coder.encode(each._searcher.vectors)
            assert np.array_equal(each._searcher._codes, codes)
    names = {"float32": 0, "int8": 2, "binary": 2, "hnsw": 1}[kind]
    assert len(list(index.directory.iterdir())) == 4 + names
    index.append(bundle, ["z z z"])
    index.delete(["z z z"])
    index.append(bundle, ["z y"])
    again = Index(index.directory)
    assert (len(again), again.text(len(left)), again.record.generation) == (len(left) + 1, "z y", 2)
    assert again.search(lettered.vectors(["z y"], weights), 1)[0].tolist() == [[len(left)]]


def test_an_index_opened_before_sees_what_it_saw(bundle, texts, weights, tmp_path):
    after = Index.build(bundle, texts[:100], tmp_path / "index", "int8")
    before = Index(tmp_path / "index")
    query = lettered.vectors(["c"], weights)
    found = before.search(query, 5)[0].tolist()
    after.delete(rows=range(50))
    assert before.search(query, 5)[0].tolist() == found
    assert before.text(3) == texts[3]
    assert before.delete(rows=[0]) == 1  # of what is there now
    assert before.text(0) == texts[51]


def _killed(directory, step):
    dying(step)
    Index(directory).delete(rows=range(0, 60, 2))


@pytest.mark.parametrize("kind", ["int8", "hnsw"])
def test_a_kill_at_any_moment_leaves_the_old_index_or_the_new(bundle, texts, tmp_path, kind):
    old = Index.build(bundle, texts[:60], tmp_path / "index", kind).directory
    sizes = []
    for step in range(1, 60):
        folder = shutil.copytree(old, tmp_path / f"killed{step}")
        process = multiprocessing.get_context("fork").Process(target=_killed, args=(folder, step))
        process.start()
        process.join(60)
        found = Index(folder)
        sizes.append(len(found))
        assert (
            [found.text(row) for row in range(len(found))] == texts[:60]
            if len(found) == 60
            else texts[1:60:2]
        )
        if step % 2:  # over what was left behind, or beside it
            found.append(bundle, ["z"])
        else:
            found.delete(rows=[0])
        assert len(Index(folder)) == len(found)
        assert len(list(folder.iterdir())) == len(list(old.iterdir()))
        shutil.rmtree(folder)
        if process.exitcode == 0:
            break
    assert process.exitcode == 0  # every step was tried
    assert sizes == sorted(sizes, reverse=True)
    assert set(sizes) == {60, 30}


@pytest.mark.parametrize(
    ("texts", "rows", "sentence"),
    [
        ((), (), "there is nothing to delete: name texts or rows"),
        (["b", "x x"], (), "does not have the text 'x x'; nothing was deleted"),
        (["y", "x", "w"], (), "does not have the text 'w' nor 2 more of those named; nothing"),
        ((), [1, 4], "has no row 4: there are 4, numbered from 0; nothing was deleted"),
        ((), [-1], "has no row -1"),
        ((), [True], "has no row True"),
        ((), "1", "has no row '1'"),
        ((), 1, "lists of texts and of numbers of rows"),
        ([["a"]], (), "lists of texts and of numbers of rows"),
        ([5], (), "does not have the text 5"),
        ("a", (), "a list of texts, not of 'a'"),
        (["a", "b", "c"], [3], "no text would stay in .*: remove the directory"),
    ],
)  # fmt: skip
def test_what_can_not_be_deleted_leaves_the_index(bundle, tmp_path, texts, rows, sentence):
    index = Index.build(bundle, ["a", "b", "c", "b"], tmp_path / "index")
    files = {path.name: path.read_bytes() for path in index.directory.iterdir()}
    with pytest.raises(InputError, match=sentence):
        index.delete(texts, rows)
    assert {path.name: path.read_bytes() for path in index.directory.iterdir()} == files
    assert index.text(3) == "b"


def test_damage_is_not_copied_under_a_new_hash(bundle, texts, tmp_path):
    index = Index.build(bundle, texts[:60], tmp_path / "index", "int8")
    path = index.directory / "codes.u8"
    path.write_bytes(path.read_bytes()[:-1] + b"\x05")
    with pytest.raises(BundleError, match=r"codes.u8 is not the file"):
        index.delete(rows=[0])


def test_a_full_disk_leaves_the_index_and_no_rest(bundle, texts, tmp_path, monkeypatch):
    index = Index.build(bundle, texts[:60], tmp_path / "index", "binary")
    files = sorted(path.name for path in index.directory.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.Appended, "close", full)
    with pytest.raises(BundleError, match=r"nothing can be deleted from .*: No space left"):
        index.delete(rows=[0])
    assert sorted(path.name for path in index.directory.iterdir()) == files
    assert len(Index(index.directory)) == 60
    with store.alone(index.directory), pytest.raises(BundleError, match="another process changes"):
        index.delete(rows=[0])
