"""Every metric notices a model that was broken on purpose, and refuses what it can't tell from one."""

import ml_dtypes
import numpy as np
import pytest
from graphwright.ir.errors import DataError
from graphwright.ir.inputs.text import TextEncoder
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec
from graphwright.tools.judge.data import Data, Row
from graphwright.tools.judge.quality import Fidelity, judge, labels_tell
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = [f"w{i}" for i in range(24)]
VOCABULARY = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[MASK]", *WORDS])}
SIZE = len(VOCABULARY)
INPUTS = (
    InputSpec("ids", "int64", ("batch", "length"), "token_ids", SIZE),
    InputSpec("mask", "int64", ("batch", "length"), "attention_mask"),
)
DRAW = np.random.default_rng(0)
TABLE = DRAW.standard_normal((SIZE, 16))
HEAD = DRAW.standard_normal((16, 3))
NEXT = TABLE @ TABLE.T  # a language model that has learned its own texts


@pytest.fixture(scope="module")
def encoder():
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextEncoder(tokenizer.to_str().encode(), INPUTS, {}, {"batch": (1, 99), "length": (1, 12)})


def hidden(feed):
    return TABLE[feed["ids"]] * feed["mask"][..., None]


def pooled(feed):
    return hidden(feed).sum(axis=1) / feed["mask"].sum(axis=1)[:, None]


MODELS = {  # task -> what a good model gives
    "embedding": lambda feed: {"sentence_embedding": pooled(feed)},
    "hidden": lambda feed: {"last_hidden_state": hidden(feed)},
    "classes": lambda feed: {"logits": pooled(feed) @ HEAD},
    "one class": lambda feed: {"logits": pooled(feed) @ HEAD * 0.1 + [5, 0, 0]},
    "one score": lambda feed: {"logits": pooled(feed) @ HEAD[:, :1]},
    "flat score": lambda feed: {"score": pooled(feed) @ HEAD[:, 0]},
    "tags": lambda feed: {"logits": hidden(feed) @ HEAD},
    "next token": lambda feed: {"logits": hidden(feed) @ TABLE.T},
    "class numbers": lambda feed: {"answers": (pooled(feed) @ HEAD).argmax(-1)},
}


def texts(count=40):
    draw = np.random.default_rng(1)
    return [" ".join(draw.choice(WORDS, draw.integers(3, 9))) for _ in range(count)]


def one(value):
    def change(array):
        array = array.copy()
        array[0] = value
        return array

    return change


def two_bits(array):
    step = max(np.abs(array).max() / 1.5, 1e-9)
    return np.clip(np.round(array / step - 0.5) + 0.5, -1.5, 1.5) * step


BREAKS = {
    "zeros": np.zeros_like,
    "constant": lambda array: np.broadcast_to(array[:1, :1] if array.ndim > 2 else array[:1], array.shape),
    "shuffled rows": lambda array: np.roll(array, 3, axis=0),
    "negated": lambda array: -array,
    "one row NaN": one(np.nan),
    "all NaN": lambda array: np.full_like(array, np.nan),
    "noise": lambda a: a + np.random.default_rng(2).standard_normal(a.shape) * np.abs(a).max(),
    "two bits": two_bits,
}


def broken(run, change):
    return lambda feed: {
        name: change(array) if array.dtype.kind == "f" else np.roll(array, 1)
        for name, array in run(feed).items()
    }


def complains(judged, run, change):
    reference = judged(run)
    assert not reference.nothing
    found = judged(broken(run, change))
    assert np.isfinite(found.value) or not found.higher_is_better
    drop = found.drop_from(reference)
    assert not np.isnan(drop)
    return drop > 0.05


@pytest.mark.parametrize("change", BREAKS)
@pytest.mark.parametrize("model", MODELS)
def test_fidelity_notices(encoder, model, change):
    run = MODELS[model]
    rows = texts()
    feeds = [encoder(rows[start : start + 10]) for start in range(0, 40, 10)]
    judged = Fidelity(feeds, run, "mask")
    assert judged(run).value == pytest.approx(100)
    assert complains(judged, run, BREAKS[change])


@pytest.mark.parametrize("model", ["embedding", "hidden", "classes", "one score", "flat score"])
def test_what_a_metric_does_not_count_stands_beside_it(encoder, model):
    run = MODELS[model]
    feeds = [encoder(texts(20))]
    whole, doubled = (Fidelity(feeds, run, "mask")(each) for each in (run, broken(run, lambda a: 2 * a)))
    assert whole.details != pytest.approx(doubled.details)


def labelled(encoder, task):
    """(judge, model) of a task whose labels are what the model says, so that it does well."""
    rows = texts(60)
    if task == "similarity":
        pairs = texts(61)[1:]
        run = MODELS["embedding"]
        a, b = (run(encoder(each))["sentence_embedding"] for each in (rows, pairs))
        gold = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        data = [Row(i, t, p, g) for i, (t, p, g) in enumerate(zip(rows, pairs, gold.tolist(), strict=True))]
        return judge(program("embedding"), Data("d", task, tuple(data)), encoder, run), run
    if task == "token-classification":
        run = MODELS["tags"]
        tags = [run(encoder([t]))["logits"][0].argmax(-1) for t in rows]
        data = [
            Row(i, tuple(t.split()), label=tuple(str(n) for n in tag))
            for i, (t, tag) in enumerate(zip(rows, tags, strict=True))
        ]
        model = program(task, labels=["O", "B-X", "I-X"])
        return judge(model, Data("d", task, tuple(data)), encoder, run), run
    if task == "perplexity":
        repeated = [" ".join([w] * 6) for w in WORDS]  # the model expects a word to come again
        run = MODELS["next token"]
        data = tuple(Row(i, t) for i, t in enumerate(repeated))
        return judge(program("causal-lm"), Data("d", task, data), encoder, run), run
    run = MODELS["classes" if task == "classification" else "one score"]
    scores = run(encoder(rows))["logits"]
    labels = scores.argmax(-1).tolist() if task == "classification" else scores[:, 0].tolist()
    data = tuple(Row(i, t, label=label) for i, (t, label) in enumerate(zip(rows, labels, strict=True)))
    names = ["a", "b", "c"] if task == "classification" else ["LABEL_0"]
    model = program("sequence-classification", labels=names)
    return judge(model, Data("d", "classification", data), encoder, run), run


def program(task, **info):
    return Program(None, "onnx", INPUTS, ("logits",), task, info=info)


@pytest.mark.parametrize(
    ("task", "change"),
    [
        (task, change)
        for task in ("classification", "one score", "similarity", "token-classification", "perplexity")
        for change in BREAKS
        # Both of a pair turn round together, and words are tagged a text at a time.
        if (task, change) not in {("similarity", "negated"), ("token-classification", "shuffled rows")}
    ],
)
def test_metrics_on_labels_notice(encoder, task, change):
    judged, run = labelled(encoder, task)
    assert complains(judged, run, BREAKS[change])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("change", ["constant", "all NaN"])
def test_an_original_that_says_nothing_is_not_judged_by(encoder, model, change):
    def flat(array):
        return np.zeros_like(array) if array.dtype.kind != "f" or change == "constant" else array * np.nan

    run = lambda feed: {name: flat(array) for name, array in MODELS[model](feed).items()}
    score = Fidelity([encoder(texts(5)), encoder(texts(7))], run, "mask")(run)
    assert score.nothing in {"gives every input the same", "gives no numbers"}


def test_one_score_is_ranked_and_takes_labels_that_are_numbers(encoder):
    judged, run = labelled(encoder, "one score")
    assert judged(run).metric == "rank correlation"
    assert judged(run).value == pytest.approx(100)
    flat = judged(lambda feed: {"logits": np.ones((len(feed["ids"]), 1))})
    assert (flat.value, flat.nothing) == (0.0, "gives every input the same score, or none")
    words = Data("d.csv", "classification", (Row(1, "w1", label="good"), Row(2, "w2", label="bad")))
    model = program("sequence-classification", labels=["LABEL_0"])
    with pytest.raises(
        DataError, match=r"d\.csv, line 1: 'good' is no number, and the model gives one score"
    ):
        judge(model, words, encoder, run)(run)


def test_an_original_no_better_than_one_answer_is_doubted(encoder):
    rows = tuple(Row(i, t, label=int(i % 3 == 0)) for i, t in enumerate(texts(30)))
    always = lambda feed: {"logits": np.tile([1.0, 0.0], (len(feed["ids"]), 1))}
    model = program("sequence-classification", labels=["a", "b"])
    score = judge(model, Data("d", "classification", rows), encoder, always)(always)
    assert score.said == "66.7% is no more than one answer for all rows gets (66.7%)"


@pytest.mark.parametrize("task", ["classification", "similarity", "token-classification"])
def test_labels_that_are_all_alike_are_refused(task):
    label = {"classification": "a", "similarity": 3.0, "token-classification": ("O", "O")}[task]
    same = Data("d.csv", task, (Row(1, "x", "y", label), Row(2, "z", "y", label)))
    with pytest.raises(DataError, match="there is nothing to judge on: give rows of several labels"):
        labels_tell(same)
    with pytest.raises(DataError, match="it has one row"):
        labels_tell(Data("d.csv", "classification", (Row(1, "x", label="a"),)))
    labels_tell(Data("d.csv", "fidelity", (Row(1, "x"),)))


@pytest.mark.parametrize(
    ("outputs", "metric", "nothing"),
    [
        ([np.array(1.0), np.array(2.0)], "rank correlation", ""),
        ([np.array([[True, False]])], "agreement", ""),
        ([np.array([["a", "b"]])], "agreement", ""),
        ([np.array([[1.0, -np.inf], [0.0, 2.0]])], "cosine", ""),
        ([np.zeros((0, 4), np.float32)], "cosine", "gives no numbers"),
        ([np.zeros((2, 0), np.float32)], "cosine", "gives no numbers"),
        ([np.ones((2, 3), ml_dtypes.bfloat16)], "cosine", "gives every input the same"),
    ],
)
def test_outputs_of_every_rank_and_type_are_judged_or_said_to_say_nothing(outputs, metric, nothing):
    given = iter([each for output in outputs for each in (output, output)])
    run = lambda feed: {"y": next(given)}
    score = Fidelity([{}] * len(outputs), run, None)(run)
    assert (score.metric, score.nothing) == (metric, nothing)
    assert nothing or score.value == pytest.approx(100)
