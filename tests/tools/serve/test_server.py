"""The command as a process: clients over the network, signals, keys, memory; and how it refuses to start."""

import json
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest
import served
from graphwright.ir.errors import ConfigError
from graphwright.tools.serve.server import listen
from graphwright.tools.verbs.serve import named
from huggingface_hub import InferenceClient

KEY = "sk-a-key-of-sixteen-characters"


@pytest.fixture(scope="module")
def server(serving, bundles):
    """All three, with a key, two calls at once."""
    words = (*bundles.values(), "--parallel", "2", "--threads", "2", "--batch-tokens", "64")
    with serving(*words, env={"GRAPHWRIGHT_API_KEY": KEY}) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with httpx2.Client(base_url=server.url, headers={"authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture
def online(monkeypatch):
    """Tests are offline, and Hugging Face's client takes loopback for outside."""
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)


def test_openai_s_client_is_answered(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
    found = client.embeddings.create(model="letters", input=["a b", "c"])
    expected = [served.vector("a b"), served.vector("c")]
    np.testing.assert_allclose([each.embedding for each in found.data], expected, atol=2e-6)
    assert [each.id for each in client.models.list()] == ["letters", "mood", "match"]
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        client.embeddings.create(model="gpt", input="a")
    with pytest.raises(openai.AuthenticationError, match="asks for a key"):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="no").embeddings.create(model="letters", input="a")


@pytest.mark.parametrize("path", ["/embed", "", "/models/letters/embed"])
def test_hugging_face_s_client_is_answered(server, online, path):
    client = InferenceClient(server.url + path, token=KEY)
    found = client.feature_extraction("a b", normalize=True, truncate=False)
    np.testing.assert_allclose(found, [served.vector("a b")], atol=2e-6)


def test_many_clients_get_what_each_gets_alone(server, http):
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(list(served.LETTERS), n)) for n in rng.integers(1, 32, 120)]

    def ask(part):
        with httpx2.Client(base_url=server.url, headers=http.headers) as client:
            return [client.post("/embed", json={"inputs": text}).json()[0] for text in part]

    with ThreadPoolExecutor(12) as pool:
        found = [row for rows in pool.map(ask, [texts[i::12] for i in range(12)]) for row in rows]
    expected = [served.vector(text) for i in range(12) for text in texts[i::12]]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_key_is_in_no_list_of_processes(server):
    assert KEY not in Path(f"/proc/{server.process.pid}/cmdline").read_text()
    assert not any(KEY in line for line in server.lines)


def test_the_log_is_json_lines(server, http):
    http.post("/embed", json={"inputs": "a"}, headers={"x-request-id": "mine"})
    line = server.event("request")
    while line["request"] != "mine":
        line = server.event("request")
    assert (line["route"], line["status"], line["level"]) == ("embed", 200, "info")
    assert all(json.loads(line) for line in server.lines)


def half(server, body, sent):
    """A connection on which the first bytes of a POST were sent."""
    head = (
        f"POST /embed HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    host, port = server.url.removeprefix("http://").rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(head.encode() + body[:sent])
    return connection


def accepts(server):
    try:
        return httpx2.get(f"{server.url}/health", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_accepted_is_finished_and_then_the_process_ends(serving, bundles, number):
    body = json.dumps({"inputs": ["a b c"] * 100}).encode()
    with serving(bundles["letters"]) as server:
        connection = half(server, body, 20)
        httpx2.get(f"{server.url}/health").raise_for_status()  # by then the half has been read
        server.process.send_signal(number)
        while accepts(server):  # nothing new, while the half is waited for
            pass
        assert server.process.poll() is None
        connection.sendall(body[20:])
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])) == 100
        assert server.process.wait(30) == 0
        assert json.loads(server.lines[-1])["event"] == "ended"


def test_who_never_sends_the_rest_delays_the_end_by_the_grace_given(serving, bundles):
    with serving(bundles["letters"], "--grace", "1") as server:
        connection = half(server, b"x" * 100, 20)
        httpx2.get(f"{server.url}/health").raise_for_status()
        assert server.ended() == 0
        connection.close()


def test_memory_stays_where_it_was(serving, bundles):
    """1,000 calls of random shapes leave resident memory within 5% of that after 250. (The figure is
    10,000 calls after 100 of a real model: benchmarks/serve.py.)"""
    rng = np.random.default_rng(0)

    def resident(client):
        text = client.get("/metrics").text
        return float(re.search(r"^process_resident_memory_bytes (\S+)", text, re.M)[1])

    def calls(client, count):
        for _ in range(count):
            rows = int(rng.integers(1, 60))
            texts = [" ".join("a" * int(n)) for n in rng.integers(1, 32, rows)]
            assert client.post("/embed", json={"inputs": texts}).status_code == 200

    with serving(bundles["letters"]) as server, httpx2.Client(base_url=server.url) as client:
        calls(client, 250)
        before = resident(client)
        calls(client, 750)
        assert resident(client) <= 1.05 * before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "there is no directory nowhere"),
        (["{letters}", "{letters}"], "two models would be named 'letters': write NAME=DIRECTORY"),
        (["a b={letters}"], "'a b' can't name a model in an address: write NAME="),
        (["{letters}", "--threads", "100000"], "name a number from 1 to"),
        (["{letters}", "--threads", "1", "--parallel", "2"], "2 calls at once need as many threads"),
        (["{letters}", "--dimensions", "8,x"], "--dimensions 8,x is no list of widths: write 64,128,256"),
        (["{letters}", "--dimensions", "17"], "letters's vectors have 16 numbers and can't be cut to 17"),
        (["{letters}", "{mood}", "--dimensions", "8"], "serve it alone, or leave it out"),
        (["{letters}", "--api-key-file", "nowhere"], "the file of API keys nowhere can't be read"),
        (["{letters}", "--host", "no.such.host.invalid"], "no.such.host.invalid:8000 can't be listened on"),
        (["{tagger}"], "is a model for token-classification; serve answers for encoders of texts"),
    ],
)
def test_what_can_t_be_served_is_said_in_a_sentence(invoke, bundles, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("graphwright.tools.serve.server.log_to_stderr", lambda level: None)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    if "{tagger}" in words:
        served.bundle(tmp_path / "tagger", "token-classification", 3)
    places = {name: str(path) for name, path in bundles.items()} | {"tagger": "tagger"}
    result = invoke("serve", *(word.format(**places) for word in words))
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_models_are_named_by_their_directories_unless_told():
    assert named(["dist/a", "b=dist/a", "./c/"]) == {"a": "dist/a", "b": "dist/a", "c": "./c/"}


def test_an_address_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} can't be listened on: "):
            listen("127.0.0.1", port)
