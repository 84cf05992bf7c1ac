"""What the routes answer, beside float64 NumPy; and what they refuse, with which words."""

import asyncio
import base64
import json

import httpx2
import numpy as np
import openai
import pytest
import served
from hypothesis import given, settings
from hypothesis import strategies as st

TEXTS = ["a b c", "z", "d e f g h i j k l m n o p", "a b c", "nonsense x"]


def close(found, expected):
    np.testing.assert_allclose(np.array(found, np.float64), expected, atol=2e-6)


def test_embed_gives_vectors_of_length_one_in_order(client):
    close(client.post("/embed", inputs=TEXTS).json(), [served.vector(text) for text in TEXTS])
    close(client.post("/embed", inputs="a b").json(), [served.vector("a b")])


def test_vectors_are_left_as_long_as_they_are_where_asked(client):
    found = client.post("/embed", inputs=["a b"], normalize=False).json()
    close(found, [served.output(served.WIDTH, "a b")])


def test_a_prompt_goes_in_front(client):
    close(client.post("/embed", inputs=["a"], prompt_name="query").json(), [served.vector("q a")])
    refused = client.post("/embed", inputs=["a"], prompt_name="passage")
    assert refused.status_code == 422
    assert refused.json()["error"] == "letters has no prompt 'passage'; it has query"


def test_rerank_puts_the_best_first(client):
    query, texts = "a b", ["c d e", "f", "x y z"]
    scores = np.array([served.output(1, query, text)[0] for text in texts])
    found = client.post("/models/match/rerank", query=query, texts=texts, raw_scores=True).json()
    order = np.argsort(-scores)
    assert [each["index"] for each in found] == order.tolist()
    close([each["score"] for each in found], scores[order])
    assert "text" not in found[0]
    found = client.post("/models/match/rerank", query=query, texts=texts, return_text=True).json()
    assert [each["text"] for each in found] == [texts[i] for i in order]
    close([each["score"] for each in found], 1 / (1 + np.exp(-scores[order])))


def test_predict_gives_labels_the_likeliest_first(client):
    logits = served.output(3, "a b")
    shares = np.exp(logits) / np.exp(logits).sum()
    found = client.post("/models/mood/predict", inputs="a b").json()
    order = np.argsort(-logits)
    assert [each["label"] for each in found] == [served.LABELS[i] for i in order]
    close([each["score"] for each in found], shares[order])
    raw = client.post("/models/mood/predict", inputs="a b", raw_scores=True).json()
    close([each["score"] for each in raw], logits[order])


def test_predict_takes_pairs_and_mixed_lists(client):
    """Two texts in a list are a pair, as in text-embeddings-inference."""
    close(
        sorted(each["score"] for each in client.post(
            "/models/mood/predict", inputs=["a b", "c"], raw_scores=True
        ).json()),
        sorted(served.output(3, "a b", "c")),
    )  # fmt: skip
    rows = [["a"], ["b", "c"], ["d e f"]]
    found = client.post("/models/mood/predict", inputs=rows, raw_scores=True).json()
    for row, answer in zip(rows, found, strict=True):
        close(sorted(each["score"] for each in answer), sorted(served.output(3, *row)))


def test_the_root_answers_as_the_model_does(client):
    close(client.post("/", inputs="a b").json(), [served.vector("a b")])
    assert client.post("/models/mood", inputs="a").json()[0]["label"] in served.LABELS
    assert client.post("/models/match", query="a", texts=["b"]).json()[0]["index"] == 0


def test_openai_s_client_is_answered(client):
    async def ask(**options):
        api = openai.AsyncOpenAI(
            api_key="none", base_url="http://here/v1", max_retries=0,
            http_client=httpx2.AsyncClient(transport=httpx2.ASGITransport(client.app)),
        )  # fmt: skip
        return await api.embeddings.create(model="letters", **options)

    expected = [served.vector(text) for text in TEXTS]
    found = client.await_(ask(input=TEXTS))  # the client asks for base64 and decodes it
    close([each.embedding for each in found.data], expected)
    assert [each.index for each in found.data] == list(range(len(TEXTS)))
    assert found.usage.prompt_tokens == sum(len(text.split()) for text in TEXTS)
    close(
        [each.embedding for each in client.await_(ask(input=TEXTS, encoding_format="float")).data], expected
    )
    with pytest.raises(openai.BadRequestError, match="not trained for shorter vectors than its 16"):
        client.await_(ask(input="a", dimensions=8))
    with pytest.raises(openai.APIStatusError, match="is longer than the 32 tokens"):
        client.await_(ask(input=["a", "a " * 33]))


def test_base64_holds_float32_of_the_little_end(client):
    body = {"input": "a b", "model": "letters"}
    numbers = client.post("/v1/embeddings", **body).json()["data"][0]["embedding"]
    text = client.post("/v1/embeddings", **body, encoding_format="base64").json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(text), "<f4").tolist() == np.float32(numbers).tolist()


def test_vectors_are_cut_where_the_model_was_trained_for_it(start, models):
    from dataclasses import replace

    client = start(given={"letters": replace(models["letters"], cuts=(4, 8))})
    for route, body in (
        ("/embed", {"inputs": "a b"}),
        ("/v1/embeddings", {"input": "a b", "model": "letters"}),
    ):
        found = client.post(route, **body, dimensions=4).json()
        row = found[0] if route == "/embed" else found["data"][0]["embedding"]
        cut = served.output(served.WIDTH, "a b")[:4]
        close(row, cut / np.linalg.norm(cut))
        refused = client.post(route, **body, dimensions=5)
        assert refused.status_code == 400
        assert "was trained for vectors of 4, 8, 16 numbers" in refused.text


def test_models_are_listed(client):
    assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["letters", "mood", "match"]
    found = client.get("/info").json()
    assert found["model_id"] == "letters"
    assert found["model_type"] == {"embedding": {"dimensions": 16, "cuts": []}}
    assert found["max_input_length"] == served.LONGEST
    mood = client.get("/models/mood/info").json()["model_type"]
    assert mood == {"classifier": {"id2label": {"0": "bad", "1": "fair", "2": "good"}}}


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/embed", b"", 400, "Invalid JSON"),
        ("/embed", b"{", 400, "Invalid JSON"),
        ("/embed", b'{"inputs": ["\xff"]}', 400, "unicode"),
        ("/embed", b'{"inputs": ["\\ud800"]}', 400, "Invalid JSON"),
        ("/embed", b"[" * 10_000, 400, "recursion limit"),
        ("/embed", b'{"inputs": ' + b"9" * 10_000 + b"}", 400, "number out of range"),
        ("/embed", b'{"inputs": 1e999}', 422, "inputs: a text, or a list"),
        ("/embed", b'{"inputs": NaN}', 422, "inputs: a text, or a list"),
        ("/embed", b"[1]", 422, "the body: Input should be an object"),
        ("/embed", b"{}", 422, "inputs: Field required"),
        ("/embed", b'{"inputs": []}', 422, "one or more texts"),
        ("/embed", b'{"inputs": {"a": "b"}}', 422, "inputs: a text, or a list"),
        ("/embed", b'{"inputs": ["a", null]}', 422, "number 1 of the list is not a text"),
        ("/embed", b'{"inputs": [[1, 2]]}', 422, "token ids are not taken"),
        ("/embed", b'{"inputs": ""}', 422, "inputs[0] has no token"),
        ("/embed", b'{"inputs": "a", "truncate": "yes"}', 422, "truncate: "),
        ("/embed", b'{"inputs": "a", "normalise": true}', 422, "normalise: Extra inputs"),
        ("/embed", b'{"inputs": "a", "dimensions": -1}', 400, "not trained"),
        ("/embed", b'{"inputs": "a", "truncation_direction": "left"}', 422, "truncation_direction: "),
        ("/embed", json.dumps({"inputs": ["a"] * 101}).encode(), 413, "101 texts and at most 100"),
        ("/embed", json.dumps({"inputs": ["a", "a " * 33]}).encode(), 413, "inputs[1] is longer than the 32"),
        ("/embed", b'{"inputs": "' + b"a" * 2049 + b'"}', 413, "inputs[0] is longer than the 32"),
        ("/embed", b'{"inputs": "' + b" " * 20_000 + b'"}', 413, "larger than 20000 bytes"),
        ("/rerank", b'{"query": "a", "texts": ["b"]}', 424, "letters is an encoder of texts"),
        ("/predict", b'{"inputs": "a"}', 424, "this route is for a classifier"),
        ("/models/mood/embed", b'{"inputs": "a"}', 424, "mood is a classifier"),
        ("/models/none/embed", b'{"inputs": "a"}', 404, "there is letters, mood, match"),
        ("/models/match/rerank", b'{"query": "a", "texts": []}', 422, "texts: a text, or a list"),
        ("/models/match/rerank", b'{"texts": ["a"]}', 422, "query: Field required"),
        ("/models/mood/predict", b'{"inputs": ["a", "b", "c"]}', 422, "a pair [text, text]"),
        ("/models/mood/predict", b'{"inputs": [["a"], "b"]}', 422, "a pair [text, text]"),
        ("/models/mood/predict", b'{"inputs": [[]]}', 422, "a pair [text, text]"),
        ("/v1/embeddings", b'{"input": "a"}', 400, "model: Field required"),
        ("/v1/embeddings", b'{"input": "a", "model": "gpt"}', 404, "no model 'gpt'"),
        ("/v1/embeddings", b'{"input": [1, 2], "model": "letters"}', 400, "token ids are not taken"),
        ("/v1/embeddings", b'{"input": "a", "model": "letters", "encoding_format": "x"}', 400, "encoding"),
        ("/v1/embeddings", b"{", 400, "Invalid JSON"),
        ("/nothing", b"{}", 404, "no such route"),
        ("/health", b"{}", 405, "POST is not for this route"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_said(client, path, body, status, reason):
    answer = client.post(path, content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()["error"]
    assert reason in (said["message"] if path.startswith("/v1/") else said)
    assert "Traceback" not in answer.text
    assert client.post("/embed", inputs="a").status_code == 200


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"content-type": "text/plain"}, "send JSON"),
        ({"content-type": ""}, "send JSON"),
        ({"content-encoding": "gzip"}, "leave Content-Encoding out"),
    ],
)
def test_only_plain_json_is_read(client, headers, reason):
    answer = client.post("/embed", content=b'{"inputs": "a"}', headers=headers)
    assert (answer.status_code, reason in answer.text) == (415, True)


def test_json_may_name_its_character_set(client):
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post("/embed", content=b'{"inputs": "a"}', headers=headers).status_code == 200


def test_long_texts_are_cut_where_asked(client, start):
    from graphwright.tools.serve.service import Limits

    long, cut = "a b " * 50, served.vector("a b " * 16)
    close(client.post("/embed", inputs=long, truncate=True).json(), [cut])
    close(client.post("/embed", inputs=long + "b" * 5000, truncate=True).json(), [cut])
    lenient = start(Limits(truncate=True))
    close(lenient.post("/embed", inputs=long).json(), [cut])
    assert lenient.post("/embed", inputs=long, truncate=False).status_code == 413


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    "inputs input model query texts truncate normalize raw_scores dimensions user".split()
)
ROUTES = "/embed /rerank /predict / /models/mood/predict /models/match/rerank /v1/embeddings".split()


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(ROUTES), JSON | st.dictionaries(FIELDS, JSON | st.just("letters"), max_size=6))
def test_any_json_is_answered_or_refused(client, route, content):
    answer = client.post(route, content=json.dumps(content).encode())
    assert answer.status_code in (200, 400, 404, 413, 422, 424), answer.text
    assert answer.json()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(ROUTES), st.binary(max_size=60))
def test_any_bytes_are_refused(client, route, content):
    answer = client.post(route, content=content)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]


def test_many_clients_get_what_they_would_get_alone(client):
    """Texts of unequal length computed together: to rounding, each as alone."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list(served.LETTERS), n)) for n in rng.integers(1, 32, 200)]

    async def ask(text):
        answer = await client.http.post("/embed", json={"inputs": text})
        return answer.json()[0]

    async def together():
        return await asyncio.gather(*map(ask, texts))

    close(client.await_(together()), [served.vector(text) for text in texts])
