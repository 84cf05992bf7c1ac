"""Texts appended to an index: found like the others, or, where the append is killed, not there at all."""

import multiprocessing
import shutil

import lettered
import numpy as np
import pytest
from graphwright import BundleError, Index, InputError
from graphwright.tools.retrieval import store
from graphwright.tools.retrieval.record import KINDS
from killed import dying

MORE = ["z z z", "y", "a b z", ""]


def build(bundle, texts, folder, kind):
    return Index.build(bundle, texts, folder / "index", kind)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_in_parts_finds_what_one_at_once_finds(bundle, texts, weights, tmp_path, kind):
    index = build(bundle, texts[:150], tmp_path, kind)
    index.append(bundle, iter(texts[150:]))
    index.append(bundle, MORE)
    again, whole = Index(index.directory), Index.build(bundle, [*texts, *MORE], tmp_path / "whole")
    assert len(index) == len(again) == len(texts) + 4
    queries = lettered.vectors(["z z", "a b", "e f g"], weights)
    for each in (index, again):
        rows, scores = each.search(queries, 5, effort=len(again))
        assert rows.tolist() == whole.search(queries, 5)[0].tolist()
        assert scores.tolist() == whole.search(queries, 5)[1].tolist()
    assert [again.text(row) for row in (149, 150, len(texts), len(texts) + 3)] == [
        texts[149], texts[150], "z z z", "",
    ]  # fmt: skip
    assert again.record.recall["rows"] == len(again)
    assert again.record.recall["value"] == again.record.recall["by_effort"][str(again.record.effort)]
    assert len(list(index.directory.glob("graph-*"))) == (kind == "hnsw")


def test_a_cut_index_stays_cut(bundle, texts, tmp_path):
    index = Index.build(bundle, texts[:100], tmp_path / "index", dims=4)
    index.append(bundle, texts[100:])
    assert index._searcher.vectors.shape == (400, 4)
    assert index.record.recall["truncation"]["rows"] == 100


def test_an_index_opened_before_sees_what_it_saw(bundle, texts, weights, tmp_path):
    build(bundle, texts[:100], tmp_path, "int8")
    before, after = Index(tmp_path / "index"), Index(tmp_path / "index")
    query = lettered.vectors(["z"], weights)
    found = before.search(query, 5)[0].tolist()
    after.append(bundle, MORE)
    assert before.search(query, 5)[0].tolist() == found
    before.append(bundle, ["x"])  # which takes in what the other appended
    assert len(before) == 105
    assert before.text(104) == "x"


def _killed(directory, bundle, step):
    dying(step)
    Index(directory).append(bundle, MORE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_any_moment_leaves_the_old_index_or_the_new(bundle, texts, weights, tmp_path, kind):
    index = build(bundle, texts[:60], tmp_path, kind)
    old, fork = index.directory, multiprocessing.get_context("fork")
    query = lettered.vectors(["z z"], weights)
    sizes = []
    for step in range(1, 40):
        folder = shutil.copytree(old, tmp_path / f"killed{step}")
        process = fork.Process(target=_killed, args=(folder, bundle, step))
        process.start()
        process.join(60)
        found = Index(folder)
        sizes.append(len(found))
        if len(found) == 60:
            assert found.search(query, 5)[0].tolist() == index.search(query, 5)[0].tolist()
            found.append(bundle, MORE)  # over what was left behind
        again = Index(folder)
        assert again.search(query, 1)[0].tolist() == [[60]]
        assert again.text(62) == "a b z"
        again.append(bundle, ["q"])
        assert len(list(folder.glob("graph-*"))) == (kind == "hnsw")
        shutil.rmtree(folder)
        if process.exitcode == 0:
            break
    assert process.exitcode == 0  # every step was tried
    assert sizes == sorted(sizes)
    assert 60 in sizes


def test_what_can_not_be_appended_leaves_the_index(bundle, other, texts, tmp_path):
    index = build(bundle, texts[:60], tmp_path, "int8")
    for wrong, sentence in (([], "no texts to append"), (["a", 5], r"texts\[1\]"), ("a", "a list of texts")):
        with pytest.raises(InputError, match=sentence):
            index.append(bundle, wrong)
    with pytest.raises(BundleError, match="vectors of another model"):
        index.append(other, ["a"])
    with store.alone(index.directory), pytest.raises(BundleError, match="another process changes"):
        index.append(bundle, ["a"])
    assert len(Index(index.directory)) == 60
    assert np.array_equal(Index(index.directory)._searcher.vectors, index._searcher.vectors)


def test_a_full_disk_leaves_the_index(bundle, texts, tmp_path, monkeypatch):
    index = build(bundle, texts[:60], tmp_path, "float32")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.Appended, "write", full)
    with pytest.raises(BundleError, match="can't be appended to: No space left"):
        index.append(bundle, MORE)
    assert len(Index(index.directory)) == 60
