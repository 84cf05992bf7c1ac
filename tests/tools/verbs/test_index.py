"""`optimize index`: the real command, from a file of texts to the texts that a question finds."""

import json
import shutil

import lettered
import numpy as np
import onnx_ir
import pytest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return lettered.bundle(tmp_path_factory.mktemp("bundles") / "letters", lettered.table())


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("a b c\n\nb c d\nx y z\nb c d\n", "utf-8")
    return path


@pytest.mark.slow
def test_texts_of_a_file_are_found_by_the_real_command(bundle, texts, tmp_path, command):
    index = tmp_path / "index"
    done = command("index", bundle, texts, "-o", index, "--kind", "int8")
    assert done.returncode == 0, done.stderr
    assert "4 texts, 16 dimensions, int8" in done.stdout
    assert "recall@10 1.000 of exact search, over 4 of its texts" in done.stdout
    found = command("index", index, "--query", "d c b", "-k", 3)
    assert found.returncode == 0, found.stderr
    rows = [line.split(maxsplit=2) for line in found.stdout.splitlines()]
    assert [row[1:] for row in rows[:2]] == [["1", "b c d"], ["3", "b c d"]]
    assert [float(row[0]) for row in rows[:2]] == [1.0, 1.0]
    more = tmp_path / "more.csv"
    more.write_text("id,body\n1,q r s\n2,\n3,t u\n", "utf-8")
    added = command("index", bundle, more, "-o", index, "--append", "--columns", "text=body", "--json")
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["rows"] == 6
    assert "more.csv: 1 row without text left out" in added.stderr
    asked = command("index", index, "--query", "t u", "--query", "a b c", "-k", 1, "--json")
    assert [[hit["text"] for hit in hits] for hits in json.loads(asked.stdout)] == [["t u"], ["a b c"]]


def test_an_index_finds_its_bundle_or_is_told(bundle, texts, tmp_path, invoke):
    moved = shutil.copytree(bundle, tmp_path / "first")
    other = lettered.bundle(tmp_path / "other", lettered.table(seed=3))
    assert invoke("index", moved, texts, "-o", tmp_path / "index", "--dims", 4).exit_code == 0
    moved.rename(tmp_path / "second")
    lost = invoke("index", tmp_path / "index", "--query", "a")
    assert lost.exit_code == 1
    assert "is no longer at" in lost.stderr
    assert "say where it is with --bundle" in lost.stderr
    assert invoke("index", tmp_path / "index", "--query", "a", "--bundle", tmp_path / "second").exit_code == 0
    wrong = invoke("index", tmp_path / "index", "--query", "a", "--bundle", other)
    assert wrong.exit_code == 1
    assert "holds vectors of another model than" in wrong.stderr


def test_texts_of_a_file_and_rows_go(bundle, texts, tmp_path, invoke):
    index = tmp_path / "index"
    assert invoke("index", bundle, texts, "-o", index, "--kind", "binary").exit_code == 0
    gone = tmp_path / "gone.csv"
    gone.write_text("id,body\n7,b c d\n", "utf-8")
    done = invoke("index", index, "--delete", gone, "--columns", "text=body", "--json")
    assert done.exit_code == 0, done.stderr
    assert (json.loads(done.stdout)["deleted"], json.loads(done.stdout)["rows"]) == (2, 2)
    absent = invoke("index", index, "--delete", gone)
    assert (absent.exit_code, "does not have the text 'b c d'; nothing was" in absent.stderr) == (1, True)
    done = invoke("index", index, "--delete-rows", "0")
    assert "1 rows deleted, the others numbered anew" in done.stdout
    assert "1 texts, 16 dimensions, binary" in done.stdout
    found = invoke("index", index, "--query", "a", "--json")
    assert [hit["text"] for hit in json.loads(found.stdout)[0]] == ["x y z"]


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["{bundle}"], 2, "optimize index BUNDLE TEXTS -o INDEX"),
        (["{bundle}", "{texts}"], 2, "-o INDEX"),
        (["{bundle}", "{texts}", "--query", "a"], 2, "optimize index INDEX --query TEXT"),
        (["{bundle}", "--query", "a"], 1, "has no index.json"),
        (["{bundle}", "--query", " "], 1, "a query is empty"),
        (["{bundle}", "{texts}", "-o", "{tmp}/i", "--kind", "flat"], 1, "of the kind float32, int8"),
        (["{bundle}", "{texts}", "-o", "{tmp}/i", "--dims", "99"], 1, "keep 1 to 16"),
        (["{bundle}", "{tmp}/none.txt", "-o", "{tmp}/i"], 1, "no such data file"),
        (["{bundle}", "{bundle}/model.onnx", "-o", "{tmp}/i"], 1, "this ends in none of them"),
        (["{tmp}", "{texts}", "-o", "{tmp}/i"], 1, "has no manifest.json"),
        (["{bundle}", "{texts}", "-o", "{tmp}/i", "--append"], 1, "has no index.json"),
        (["{bundle}", "{texts}", "-o", "{bundle}"], 1, "exists already"),
        (["{bundle}", "{texts}", "-o", "{tmp}/i", "--append", "--dims", "4"], 2, "leave out --dims"),
        (["{bundle}", "--delete", "{texts}"], 1, "has no index.json"),
        (["{bundle}", "{texts}", "--delete-rows", "1"], 2, "optimize index INDEX --delete FILE"),
        (["{bundle}", "--delete-rows", "1,b"], 2, "as in --delete-rows 3,17"),
        (["{bundle}", "--delete-rows", "9" * 5000], 2, "as in --delete-rows 3,17"),
    ],
)
def test_what_can_not_be_is_one_sentence(bundle, texts, tmp_path, invoke, words, status, sentence):
    done = invoke("index", *(word.format(bundle=bundle, texts=texts, tmp=tmp_path) for word in words))
    assert done.exit_code == status
    assert sentence in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "i").exists()


def test_a_row_that_holds_no_text_is_named(bundle, tmp_path, invoke):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n{"text": 5}\n')
    done = invoke("index", bundle, path, "-o", tmp_path / "i")
    assert "texts.jsonl, line 2: 'text' should be text, not 5" in done.stderr
    assert not (tmp_path / "i").exists()


@pytest.mark.slow
def test_a_build_is_judged_by_how_it_ranks_documents(tmp_path, command):
    model = tmp_path / "letters.onnx"
    program = lettered.program(lettered.table())
    onnx_ir.save(program.graph, model)
    (tmp_path / "tokenizer.json").write_bytes(program.tokenizer["tokenizer.json"])
    data = tmp_path / "questions.csv"
    pairs = [("a b", "a b c"), ("d", "d d e"), ("f g", "g f"), ("h", "i h")]
    data.write_text("\n".join(["query,passage", *(",".join(pair) for pair in pairs)]))
    words = ("--data", data, "--task", "retrieval", "--pipeline", "fold-constants", "--quick", "--json")
    done = command(model, "-o", tmp_path / "out", *words)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    scores = [found for found in _scores(manifest) if found["metric"] == "nDCG@10"]
    assert {round(found["value"], 6) for found in scores} == {round(_ndcg(pairs), 6)}
    assert scores[0]["details"].keys() == {"recall@10", "MAP"}


def _scores(value):
    """Every score in a record."""
    if isinstance(value, dict):
        if "metric" in value and "details" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _scores(each)


def _ndcg(pairs):
    """Of each query over all documents, one of which is its own: 1 / log2(rank + 1)."""
    queries, documents = (lettered.vectors([pair[i] for pair in pairs], lettered.table()) for i in (0, 1))
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, documents)]
    cosines = unit[0] @ unit[1].T
    ranks = 1 + (cosines > np.diag(cosines)[:, None] + 1e-9).sum(axis=1)
    return 100 * np.mean(1 / np.log2(ranks + 1))
