"""What an index finds is what float64 NumPy finds; what is damaged or of another model is refused."""

import json
import shutil
import sys

import lettered
import numpy as np
import pytest
from graphwright import BackendError, BundleError, ConfigError, Index, InputError
from graphwright.tools.retrieval import asking as questions
from graphwright.tools.retrieval import recall as measuring
from graphwright.tools.retrieval import vectors as arithmetic
from graphwright.tools.retrieval import write as writing
from graphwright.tools.retrieval.graph import Graph, usearch
from hypothesis import given, settings
from hypothesis import strategies as st

KINDS = ("float32", "int8", "binary", "hnsw")
ROUNDING = 1e-6  # of cosines of vectors that are kept in float32


@pytest.fixture(scope="session")
def indexes(bundle, texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexes")
    return {kind: Index.build(bundle, texts, folder / kind, kind) for kind in KINDS}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_float32_finds_what_numpy_finds(indexes, texts, weights):
    index = indexes["float32"]
    vectors = unit(lettered.vectors(texts, weights))
    queries = lettered.vectors(["a b", "c c d", "k"], weights)
    rows, scores = index.search(queries, 25)
    expected = unit(queries) @ vectors.T
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :25], atol=ROUNDING)
    np.testing.assert_allclose(np.take_along_axis(expected, rows, 1), scores, atol=ROUNDING)
    assert index.record.recall["value"] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_one_vector_have_one_score_and_the_order_of_their_rows(indexes, texts, weights, kind):
    rows, scores = indexes[kind].search(lettered.vectors(texts[:3], weights), 10)
    for found, values in zip(rows, scores, strict=True):
        for a, b, x, y in zip(found[:-1], found[1:], values[:-1], values[1:], strict=True):
            same = sorted(texts[a].split()) == sorted(texts[b].split())
            assert x > y or (x == y and a < b)
            assert not same or x == y


@pytest.mark.parametrize("kind", KINDS[1:])
def test_other_kinds_find_as_much_as_they_say(indexes, texts, weights, kind):
    index, exact = indexes[kind], indexes["float32"]
    said = index.record.recall
    assert said["metric"] == "recall@10"
    assert said["value"] >= said["goal"] == measuring.GOALS[kind]
    asking = questions.sample(len(texts))
    vectors = unit(lettered.vectors(texts, weights))[asking]
    shares = []
    looked = 10 * index.record.effort + 1  # as a question that wants 10, and the row itself
    for row, wanted, found in zip(
        asking, exact.search(vectors, 11)[0], index.search(vectors, looked, 1)[0], strict=True
    ):
        shares.append(len(set(wanted[wanted != row][:10]) & set(found[found != row][:10])) / 10)
    beside = kind == "hnsw"  # where the row itself is in no graph, which gives one more
    assert np.mean(shares) == pytest.approx(said["value"], abs=0.005 if beside else 1e-12)


def test_rows_that_ask_are_not_in_the_graph(bundle, texts, tmp_path):
    """A question is none of the rows, and one that is finds more: its links are its neighbours."""
    index = Index.build(bundle, texts, tmp_path / "index", "hnsw")
    first = questions.held(index.record)
    assert len(first) == min(len(texts), questions.QUERIES)
    index.append(bundle, ["a b c", "k l"])
    record = index.record
    assert questions.held(record).tolist() == first.tolist()
    assert record.recall["queries"] == len(first)
    graph = usearch().Index.restore(str(index.directory / record.graph))
    inside = np.setdiff1d(np.arange(record.rows), first)
    assert sorted(np.asarray(graph.keys).tolist()) == inside.tolist()
    for row in (int(first[0]), int(inside[0]), record.rows - 1):
        assert index.ask(bundle, [index.text(row)], 1)[0][0].score == pytest.approx(1, abs=ROUNDING)


def test_a_goal_is_reached_where_chance_is_not_what_reached_it(bundle, texts, tmp_path):
    index = Index.build(bundle, texts, tmp_path / "first", "binary", recall=0.1)
    said = index.record.recall
    assert 0 < said["error"] < 0.02
    edge = said["value"] - said["error"]  # reached by the mean, and by one error less
    above = Index.build(bundle, texts, tmp_path / "second", "binary", recall=edge).record
    assert above.effort > index.record.effort
    low = said["value"] - 1.65 * said["error"]
    assert (
        Index.build(bundle, texts, tmp_path / "third", "binary", recall=low).record.effort
        == index.record.effort
    )


def test_the_least_effort_that_reaches_the_goal_is_taken(bundle, texts, tmp_path):
    low = Index.build(bundle, texts, tmp_path / "low", "binary", recall=0.1).record
    high = Index.build(bundle, texts, tmp_path / "high", "binary", recall=1.0).record
    assert low.effort < high.effort
    values = list(high.recall["by_effort"].values())
    assert values == sorted(values)
    assert low.recall["value"] == high.recall["by_effort"][str(low.effort)] >= 0.1


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), rows=st.integers(1, 200), dims=st.integers(1, 40), k=st.integers(1, 30),
    count=st.integers(1, 4), block=st.sampled_from([1, 64, 1 << 20]),
)  # fmt: skip
def test_exact_search_is_float64s_ties_included(seed, rows, dims, k, count, block):
    """Values of few digits make products exact, so that ties are ties; vectors of odd scales round."""
    draw = np.random.default_rng(seed)
    vectors = (draw.integers(-3, 4, (rows, dims)) * 2.0 ** draw.integers(-3, 4)).astype(np.float32)
    vectors[draw.integers(0, rows, rows // 4)] = vectors[0]
    if seed % 2:
        vectors *= draw.uniform(0.1, 10, (rows, 1)).astype(np.float32)
    queries = draw.integers(-3, 4, (count, dims)).astype(np.float32)
    longest = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())
    expected = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arithmetic, "_SCORES", block)
        candidates = list(arithmetic.whole(vectors, queries, min(k, rows), longest))
    for query, found, scores in zip(queries, candidates, expected, strict=True):
        order = np.lexsort((np.arange(rows), -scores))[:k]
        got, values = arithmetic.ranked(vectors, found, query, k)
        np.testing.assert_allclose(values, scores[order], rtol=1e-12, atol=1e-12)
        if not seed % 2:
            assert got.tolist() == order.tolist()


def test_what_float32_rounds_apart_ties():
    """Orders of the same 24-bit numbers: their sums are one in float64, and many in float32."""
    draw = np.random.default_rng(0)
    numbers = (draw.integers(-(2**23), 2**23, 64) * 2.0**-20).astype(np.float32)
    vectors = np.stack([draw.permutation(numbers) for _ in range(700)])
    longest = float(np.linalg.norm(numbers.astype(np.float64)))
    query = np.ones((1, 64), np.float32)
    assert len(set((query @ vectors.T)[0].tolist())) > 5
    found = next(arithmetic.whole(vectors, query, 5, longest))
    assert arithmetic.ranked(vectors, found, query[0], 5)[0].tolist() == [0, 1, 2, 3, 4]


def test_rows_that_no_way_in_the_graph_leads_to_are_found(indexes, texts, weights, monkeypatch):
    queries = lettered.vectors(texts[:2], weights)
    expected = indexes["float32"].search(queries, 4)
    nearest = Graph.nearest
    monkeypatch.setattr(Graph, "nearest", lambda *given: [rows[:3] for rows in nearest(*given)])
    found = indexes["hnsw"].search(queries, 4)
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]


def test_more_than_there_is_gives_all(bundle, tmp_path, weights):
    for kind in KINDS:
        index = Index.build(bundle, ["a", "b b", "c"], tmp_path / kind, kind)
        rows, scores = index.search(lettered.vectors(["b"], weights), 10)
        assert rows.shape == scores.shape == (1, 3)
        assert rows[0, 0] == 1
        assert sorted(rows[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_asking_gives_texts_with_scores(indexes, bundle, texts, kind):
    hits = indexes[kind].ask(bundle, [texts[7], "l"], 3)
    assert [len(each) for each in hits] == [3, 3]
    assert sorted(hits[0][0].text.split()) == sorted(texts[7].split())
    assert hits[0][0].score == pytest.approx(1, abs=ROUNDING)
    assert [hit.text for hit in hits[1]] == [texts[hit.row] for hit in hits[1]]
    assert indexes[kind].ask(bundle, texts[7], 3)[0] == hits[0]


def test_inner_products_keep_lengths(bundle, texts, weights, tmp_path):
    index = Index.build(bundle, texts, tmp_path / "dot", metric="dot")
    query = lettered.vectors(["a b"], weights)
    _, scores = index.search(query, 5)
    assert scores[0].tolist() == sorted((query @ lettered.vectors(texts, weights).T)[0], reverse=True)[:5]


def test_cut_vectors_are_those_of_the_first_dimensions(bundle, texts, weights, tmp_path):
    index = Index.build(bundle, texts, tmp_path / "cut", dims=5)
    vectors = unit(lettered.vectors(texts, weights)[:, :5])
    np.testing.assert_allclose(index._searcher.vectors, vectors, atol=ROUNDING)
    query = lettered.vectors(["a b"], weights)
    rows, scores = index.search(query, 5)
    np.testing.assert_allclose(scores[0], -np.sort(-(vectors @ unit(query[:, :5])[0]))[:5], atol=ROUNDING)
    assert index.search(query[:, :5], 5)[0].tolist() == rows.tolist()
    said = index.record.recall["truncation"]
    assert (said["dims"], said["of"], said["rows"]) == (5, 16, 400)
    full, asking = unit(lettered.vectors(texts, weights)).astype(np.float32), measuring.sample(400)
    pairs = [measuring.neighbours(each, asking, 1.01) for each in (full, vectors.astype(np.float32))]
    assert said["recall"] == pytest.approx(measuring.shares(*pairs).mean(), abs=0.02)  # ties by rounding
    assert said["recall"] < 0.9
    assert not (index.directory / "full.f32").exists()


def test_an_empty_text_is_a_text(bundle, tmp_path, texts):
    index = Index.build(bundle, ["", *texts[:20], ""], tmp_path / "some")
    assert (index.text(0), index.text(1), index.text(21)) == ("", texts[0], "")
    assert index.ask(bundle, texts[0], 1)[0][0].row == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "int4"}, "of the kind float32, int8, binary, hnsw .* not 'int4'"),
        ({"metric": "l2"}, "not 'float32' and 'l2'"),
        ({"dims": 17}, "have 16 dimensions; keep 1 to 16 of them, not 17"),
        ({"dims": 0}, "not 0"),
        ({"recall": 1.5}, "recall is a number from 0 to 1"),
        ({"recall": float("nan")}, "recall is a number from 0 to 1"),
    ],
)
def test_what_can_not_be_built_is_refused(bundle, tmp_path, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Index.build(bundle, ["a"], tmp_path / "index", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ([], "there are no texts to index"),
        ("one text", "a list of texts, not of 'one text'"),
        (["a", 5], r"texts\[1\] is a int"),
        (None, "a list of texts, not of None"),
        (["\ud800"], "half of a character"),
    ],
)
def test_what_is_no_text_is_refused(bundle, tmp_path, texts, sentence):
    with pytest.raises(InputError, match=sentence):
        Index.build(bundle, texts, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_a_text_far_behind_is_called_by_its_place(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_TOGETHER", 4)
    with pytest.raises(InputError, match=r"texts\[4:\]\[1\] is a int"):
        Index.build(bundle, [*"abcde", 5], tmp_path / "index")


def test_vectors_that_are_no_numbers_are_refused(weights, tmp_path):
    broken = weights.copy()
    broken[2 + lettered.LETTERS.index("c")] = np.nan
    bundle = lettered.bundle(tmp_path / "broken", broken)
    with pytest.raises(InputError, match=r"the vector of texts\[2\] holds NaN"):
        Index.build(bundle, list("abc"), tmp_path / "index")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(("kind", "package"), [("int8", "numkong"), ("hnsw", "usearch")])
def test_a_package_that_is_missing_is_named(indexes, bundle, tmp_path, monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.index", None)
    for make in (
        lambda: Index.build(bundle, ["a"], tmp_path / "index", kind),
        lambda: Index(indexes[kind].directory),
    ):
        with pytest.raises(BackendError, match=rf"{package}: pip install graphwright\[retrieval\]"):
            make()
    assert len(Index(indexes["float32"].directory)) == 400
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("queries", "k", "sentence"),
    [
        (np.ones((1, 7)), 3, r"rows of 16 numbers, not float64 \[1, 7\]"),
        (np.ones(16), 3, r"not float64 \[16\]"),
        (np.full((2, 16), np.nan), 3, r"queries\[0\] holds NaN"),
        (np.full((1, 16), 1e200), 3, "too large"),
        ([["a"] * 16], 3, "rows of 16 numbers"),
        (np.ones((1, 16)), 0, "k is a whole number from 1, not 0"),
        (np.ones((1, 16)), 2.0, "k is a whole number"),
    ],
)
def test_questions_that_do_not_fit_are_refused(indexes, queries, k, sentence):
    with pytest.raises(InputError, match=sentence):
        indexes["int8"].search(queries, k)


def test_no_queries_find_nothing(indexes):
    for index in indexes.values():
        assert index.search(np.empty((0, 16)), 4)[0].shape == (0, 4)


def test_another_bundle_is_refused_and_a_copy_is_not(indexes, bundle, other, tmp_path):
    with pytest.raises(BundleError, match=r"vectors of another model than .*other"):
        indexes["float32"].ask(other, "a")
    copy = shutil.copytree(bundle, tmp_path / "copy")
    assert indexes["float32"].ask(copy, "a") == indexes["float32"].ask(bundle, "a")


def test_only_sentence_encoders_make_indexes(tmp_path, weights):
    tokens = lettered.bundle(
        tmp_path / "tokens", weights, body="states = Gather (table, input_ids)",
        output="float[batch,length,16] states",
    )  # fmt: skip
    with pytest.raises(InputError, match=r"gives a text states of shape \[1, 16\].* pools its tokens"):
        Index.build(tokens, ["a"], tmp_path / "index")
    labels = lettered.bundle(tmp_path / "labels", weights, task="sequence-classification")
    with pytest.raises(BundleError, match="its task is sequence-classification"):
        Index.build(labels, ["a"], tmp_path / "index")


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


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_loads_without_what_made_the_model(indexes, bundle, texts, kind):
    """In a fresh process, and before the bundle's runtime is."""
    import subprocess

    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'tvm', 'onnx', 'onnxscript', 'pydantic'):\n"
        "    sys.modules[name] = None\n"
        "import graphwright as gw\n"
        f"index = gw.Index({str(indexes[kind].directory)!r})\n"
        f"print(index.ask({str(bundle)!r}, {texts[7]!r})[0][0].score)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert float(done.stdout) == pytest.approx(1, abs=ROUNDING)
