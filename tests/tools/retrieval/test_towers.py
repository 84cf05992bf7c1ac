"""Two bundles as the towers of one dual encoder: questions through one, texts through the other."""

import json
import shutil

import lettered
import numpy as np
import pytest
from graphwright import BundleError, Index, Towers
from graphwright.backends.bundles.manifest import sealed
from sklearn.metrics import ndcg_score


@pytest.fixture(scope="module")
def towers(bundle, other, tmp_path_factory):
    return Towers.join(other, bundle, tmp_path_factory.mktemp("towers") / "both")


def test_each_role_has_its_tower(towers, weights):
    again = Towers(towers.directory)
    for role, table in (("query", lettered.table(seed=1)), ("document", weights)):
        np.testing.assert_allclose(again.embed(["a b", "c"], role), lettered.vectors(["a b", "c"], table))
    assert again.digest == towers.digest


def test_an_index_of_texts_is_asked_through_the_other_tower(towers, bundle, other, texts, weights, tmp_path):
    index = Index.build(towers.directory, texts, tmp_path / "index", metric="dot")
    hits = index.ask(towers.directory, "a b", 3)[0]
    question = lettered.vectors(["a b"], lettered.table(seed=1))[0]
    assert [hit.score for hit in hits] == sorted(lettered.vectors(texts, weights) @ question)[::-1][:3]
    for one in (bundle, other, Towers.join(bundle, other, tmp_path / "turned")):
        with pytest.raises(BundleError, match="vectors of another model"):
            index.ask(one, "a b")


def test_prompts_stand_in_front_and_are_part_of_the_model(weights, tmp_path):
    prompts = {"query": "q ", "document": "d e "}
    bundle = lettered.bundle(tmp_path / "prompted", weights, prompts=prompts)
    index = Index.build(bundle, ["a", "b"], tmp_path / "index", metric="dot")
    documents, question = lettered.vectors(["d e a", "d e b"], weights), lettered.vectors(["q a"], weights)[0]
    assert {hit.text: hit.score for hit in index.ask(bundle, "a")[0]} == dict(
        zip("ab", documents @ question, strict=True)
    )
    plain = lettered.bundle(tmp_path / "plain", weights)
    with pytest.raises(BundleError, match="vectors of another model"):
        index.ask(plain, "a")


def test_retrieval_is_judged_through_both(towers, bundle, other, weights, tmp_path, invoke):
    pairs = [("a b", "c d"), ("e", "f g"), ("h i", "j"), ("k", "l a"), ("b", "d f")]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["query,passage", *map(",".join, pairs)]))
    done = invoke("towers", other, bundle, "-o", tmp_path / "out", "--data", path, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    asked, known = (
        lettered.vectors([pair[i] for pair in pairs], table)
        for i, table in ((0, lettered.table(seed=1)), (1, weights))
    )
    asked, known = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (asked, known))
    cosines = asked @ known.T
    assert found["quality"]["value"] == pytest.approx(100 * ndcg_score(np.eye(5), cosines, k=10), abs=1e-6)
    assert found["model"] == towers.digest
    assert "nDCG@10" in invoke("towers", other, bundle, "-o", tmp_path / "o2", "--data", path).stdout
    again = invoke("towers", other, bundle, "-o", tmp_path / "out")
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)


def test_what_are_no_towers_is_refused(towers, bundle, other, weights, tmp_path):
    narrow = lettered.bundle(tmp_path / "narrow", lettered.table(width=8))
    with pytest.raises(BundleError, match=r"have 16 dimensions and those of .* 8: they are no towers"):
        Towers.join(bundle, narrow, tmp_path / "out")
    labels = lettered.bundle(tmp_path / "labels", weights, task="sequence-classification")
    with pytest.raises(BundleError, match="is no sentence encoder"):
        Towers.join(bundle, labels, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BundleError, match=r"has no towers.json"):
        Towers(bundle)
    folder = shutil.copytree(towers.directory, tmp_path / "copy")
    shutil.rmtree(folder / "query")
    shutil.copytree(bundle, folder / "query")
    with pytest.raises(BundleError, match=r"query is not the tower that towers.json was written for"):
        Towers(folder)
    for content in (b"{", sealed({"format": 2}), sealed({"format": 1, "towers": {"query": 5}}), sealed({})):
        (folder / "towers.json").write_bytes(content)
        with pytest.raises(BundleError, match=r"towers.json can't be read .*: join the towers again"):
            Towers(folder)
