"""Models that rank documents, judged on data small enough to rank by hand."""

import numpy as np
import pytest
from graphwright.ir.errors import DataError
from graphwright.ir.inputs.text import TextEncoder
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec
from graphwright.tools.judge import judging
from graphwright.tools.judge.data import Data, Row, read
from graphwright.tools.judge.quality import judge
from graphwright.tools.judge.ranking import maxsim
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["[PAD]", "[UNK]", *"abcdefgh"]
INPUTS = (
    InputSpec("input_ids", "int64", ("batch", "length"), "token_ids", len(WORDS)),
    InputSpec("attention_mask", "int64", ("batch", "length"), "attention_mask"),
)
TABLE = np.random.default_rng(0).standard_normal((len(WORDS), 6))
EXACT = 1e-7


@pytest.fixture(scope="module")
def encoder():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextEncoder(tokenizer.to_str().encode(), INPUTS, {}, {"batch": (1, 99), "length": (1, 12)})


def program(task="embedding"):
    return Program(None, "onnx", INPUTS, ("out",), task)


def data(task, *examples):
    rows = tuple(Row(line, *example) for line, example in enumerate(examples, 1))
    return Data("d.csv", task, rows, (), tuple(dict.fromkeys(row.pair for row in rows)))


def never(feed):
    raise AssertionError("the reference is not needed here")


def pooled(feed):
    words = TABLE[feed["input_ids"]] * feed["attention_mask"][..., None]
    return {"sentence_embedding": words.sum(1).astype(np.float32)}


def tokens(feed):
    """Padding's vectors are the largest there are, so that they show where they count."""
    hidden = np.where(feed["attention_mask"][..., None] == 0, 50.0, TABLE[feed["input_ids"]])
    return {"states": hidden.astype(np.float32)}


def summed(text):
    return TABLE[[WORDS.index(word) for word in text.split()]].sum(0)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


PAIRS = [("a b", "a b c", 1.0), ("a b", "g", 0.0), ("c", "c d", 2.0), ("c", "h a", 1.0), ("e f", "f", 1.0)]


def expected(rows, score):
    """nDCG@10 and MAP over queries of (gains, scores), by scikit-learn."""
    ranked = [(gains, [score(query, document) for document in documents]) for query, documents, gains in rows]
    return (
        100 * np.mean([ndcg_score([gains], [scores], k=10) for gains, scores in ranked]),
        100 * np.mean([average_precision_score(np.array(g) > 0, s) for g, s in ranked]),
    )


def test_retrieval_ranks_all_documents_by_cosine(encoder):
    found = judge(program(), data("retrieval", *PAIRS), encoder, never)(pooled)
    documents = ["a b c", "g", "c d", "h a", "f"]
    rows = [
        ("a b", documents, [1, 0, 0, 0, 0]),
        ("c", documents, [0, 0, 2, 1, 0]),
        ("e f", documents, [0, 0, 0, 0, 1]),
    ]
    gain, precision = expected(rows, lambda q, d: cosine(summed(q), summed(d)))
    assert (found.metric, found.value) == ("nDCG@10", pytest.approx(gain, abs=EXACT))
    assert found.details == {"recall@10": 100, "MAP": pytest.approx(precision, abs=EXACT)}
    assert not found.nothing


def test_rerank_ranks_a_querys_own_rows_by_the_score_of_the_pair(encoder):
    def run(feed):  # the ids' sum
        return {
            "logits": (feed["input_ids"] * feed["attention_mask"]).sum(1, keepdims=True).astype(np.float32)
        }

    examples = [("a", "b", 1.0), ("a", "c", 0.0), ("a", "d", 2.0), ("e", "b", 3.0), ("e", "h", 0.0)]
    found = judge(program("sequence-classification"), data("rerank", *examples), encoder, never)(run)
    rows = [("a", ["b", "c", "d"], [1, 0, 2]), ("e", ["b", "h"], [3, 0])]
    gain, precision = expected(rows, lambda q, d: WORDS.index(q) + WORDS.index(d))
    assert found.value == pytest.approx(gain, abs=EXACT)
    assert found.details["MAP"] == pytest.approx(precision, abs=EXACT)


def test_encoders_rerank_by_cosine(encoder):
    examples = [("a", "b", 1.0), ("a", "c", 0.0), ("a", "a d", 2.0)]
    found = judge(program(), data("rerank", *examples), encoder, never)(pooled)
    gain, _ = expected([("a", ["b", "c", "a d"], [1, 0, 2])], lambda q, d: cosine(summed(q), summed(d)))
    assert found.value == pytest.approx(gain, abs=EXACT)


def test_vectors_of_tokens_are_compared_by_late_interaction(encoder):
    def late(query, document):
        def unit(text):
            rows = TABLE[[WORDS.index(word) for word in text.split()]]
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

        return sum(max(q @ d for d in unit(document)) for q in unit(query))

    found = judge(program(), data("retrieval", *PAIRS), encoder, never)(tokens)
    documents = ["a b c", "g", "c d", "h a", "f"]
    rows = [
        ("a b", documents, [1, 0, 0, 0, 0]),
        ("c", documents, [0, 0, 2, 1, 0]),
        ("e f", documents, [0, 0, 0, 0, 1]),
    ]
    gain, precision = expected(rows, late)
    assert found.value == pytest.approx(gain, abs=EXACT)
    assert found.details["MAP"] == pytest.approx(precision, abs=EXACT)


@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 3))
def test_maxsim_is_the_sum_of_the_largest_products(seed, count, together):
    draw = np.random.default_rng(seed)
    queries, documents = (
        [draw.standard_normal((draw.integers(1, 5), 4)) for _ in range(many)] for many in (3, count)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphwright.tools.judge.ranking._TOGETHER", together)
        found = maxsim(queries, documents)
    for row, query in zip(found, queries, strict=True):
        for value, document in zip(row, documents, strict=True):
            assert value == pytest.approx(sum(max(q @ d for d in document) for q in query), abs=1e-8)


def test_queries_that_can_not_tell_are_left_out(encoder):
    examples = [*PAIRS[:2], ("d", "a b c", 0.0), ("d", "g", 0.0)]  # nothing is relevant to d
    left = judge(program(), data("retrieval", *examples), encoder, never)(pooled)
    assert left.value == judge(program(), data("retrieval", *PAIRS[:2]), encoder, never)(pooled).value
    with pytest.raises(DataError, match="no query has both a relevant document and another"):
        judge(program(), data("rerank", ("a", "b", 1.0), ("a", "c", 2.0), ("d", "e", 0.0)), encoder, never)


def test_a_model_that_says_nothing_of_documents_says_so(encoder):
    def same(feed):
        return {"sentence_embedding": np.ones((len(feed["input_ids"]), 4), np.float32)}

    def nan(feed):
        return {"sentence_embedding": np.full((len(feed["input_ids"]), 4), np.nan, np.float32)}

    for run in (same, nan):
        found = judge(program(), data("retrieval", *PAIRS), encoder, never)(run)
        assert "the same score" in found.nothing
        assert found.value < 80  # what chance gives


def test_documents_without_a_number_rank_last(encoder):
    def run(feed):
        found = pooled(feed)["sentence_embedding"]
        found[(feed["input_ids"] == WORDS.index("d")).any(axis=1)] = np.nan
        return {"sentence_embedding": found}

    examples = [("a", "a d", 1.0), ("a", "b", 0.0), ("a", "c", 0.0)]
    found = judge(program(), data("rerank", *examples), encoder, never)(run)
    assert found.value == pytest.approx(100 / np.log2(4), abs=EXACT)


def test_what_does_not_fit_is_refused(encoder):
    def two(feed):
        return {"logits": np.zeros((len(feed["input_ids"]), 2), np.float32)}

    with pytest.raises(DataError, match=r"not the 2 of this model"):
        judge(program("sequence-classification"), data("rerank", *PAIRS[:2]), encoder, never)(two)
    with pytest.raises(DataError, match="judge it with --task rerank"):
        judge(program("sequence-classification"), data("retrieval", *PAIRS), encoder, never)
    speaks = Program(None, "onnx", INPUTS, ("logits",), "causal-lm")
    with pytest.raises(DataError, match="task is causal-lm, and its logits are no vectors to compare"):
        judge(speaks, data("retrieval", *PAIRS), encoder, never)
    with pytest.raises(DataError, match=r"d.csv, line 2: -1.0 is below 0"):
        judge(program(), data("retrieval", PAIRS[0], ("a b", "g", -1.0)), encoder, never)
    with pytest.raises(DataError, match="ranking documents needs an embedding"):
        judge(program(), data("retrieval", *PAIRS), encoder, never)(lambda feed: {"y": np.zeros(1)})


def written(tmp_path, text):
    path = tmp_path / "d.csv"
    path.write_text(text)
    return str(path)


def test_pairs_without_labels_belong_together(tmp_path):
    path = written(tmp_path, "id,query,passage\n1,a b,some words here\n2,c,other words there\n")
    found = read(path, "embedding", "retrieval")
    assert [(row.text, row.pair, row.label) for row in found.rows] == [
        ("a b", "some words here", None), ("c", "other words there", None),
    ]  # fmt: skip
    assert found.documents == ("some words here", "other words there")
    with pytest.raises(DataError, match="rerank needs a label column"):
        read(written(tmp_path, "query,passage\na b,some words\nc d,more words\n"), "embedding", "rerank")
    with pytest.raises(DataError, match=r"line 2: 'label' should be a number, not 'yes'"):
        read(written(tmp_path, "query,passage,label\na,b,yes\n"), "embedding", "rerank")


def test_a_sample_keeps_a_querys_rows_together(tmp_path):
    lines = [f"q{number % 40},document {number},{number % 3}" for number in range(200)]
    path = written(tmp_path, "\n".join(["query,passage,label", *lines]))
    found = read(path, "embedding", "rerank", samples=52, seed=1)
    sizes = {row.text: 0 for row in found.rows}
    for row in found.rows:
        sizes[row.text] += 1
    assert set(sizes.values()) == {5}
    assert len(sizes) == 10
    assert [row.line for row in found.rows] == sorted(row.line for row in found.rows)
    assert any("50 of 200 rows are used" in sentence for sentence in found.said)
    other = read(path, "embedding", "rerank", samples=52, seed=2)
    assert {row.text for row in other.rows} != set(sizes)
    assert len(read(path, "embedding", "rerank", samples=2).rows) == 2


def test_rows_that_tune_are_of_other_queries_than_those_that_judge():
    rows = [(f"q{number % 50}", f"d{number}", float(number % 2)) for number in range(150)]
    tuning, final, said = judging._split(data("rerank", *rows), 0)
    assert not said
    assert {row.text for row in tuning.rows}.isdisjoint(row.text for row in final.rows)
    assert len(tuning.rows) + len(final.rows) == 150
    assert len(tuning.rows) in range(30, 40)
    assert tuning.documents == final.documents
