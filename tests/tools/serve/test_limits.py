"""Limits around a service: room, time, keys; clients that leave; failures inside."""

import asyncio
import json
import logging
import threading
from dataclasses import replace

import numpy as np
import pytest
from graphwright.ir.errors import ConfigError
from graphwright.tools.serve.body import read_body
from graphwright.tools.serve.keys import read_keys
from graphwright.tools.serve.logs import JsonFormatter
from graphwright.tools.serve.refusal import Refusal
from graphwright.tools.serve.service import HANGS, Limits

KEY = "sk-a-key-of-sixteen-characters"


class Gate:
    """A bundle whose calls wait until the gate is open. calls: how many began."""

    def __init__(self, bundle):
        self._bundle, self.open, self.calls = bundle, threading.Event(), 0

    def __getattr__(self, name):
        return getattr(self._bundle, name)

    def run(self, feed):
        self.calls += 1
        self.open.wait(20)
        return self._bundle.run(feed)


@pytest.fixture
def gated(models, start):
    """gated(limits) -> (client, gate): an encoder that computes when it is let."""
    gates = []

    def make(limits=None):
        gate = Gate(models["letters"].bundle)
        gates.append(gate)
        return start(limits, given={"letters": replace(models["letters"], bundle=gate)}), gate

    yield make
    for gate in gates:
        gate.open.set()


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came")


def embed(client, text="a"):
    return client.http.post("/embed", json={"inputs": text})


def test_more_texts_than_may_wait_are_told_when_to_come_again(gated):
    client, gate = gated(Limits(waiting=40))

    async def scenario():
        first = asyncio.ensure_future(embed(client))
        await until(lambda: gate.calls == 1)
        waiting = asyncio.ensure_future(embed(client, "a " * 30))
        await until(lambda: client.service.batcher.waiting_tokens == 30)
        refused = await embed(client, "a " * 11)
        gate.open.set()
        return refused, await first, await waiting

    refused, first, waiting = client.await_(scenario())
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json() == {
        "error": "too many texts are waiting: try again later", "error_type": "Overloaded",
    }  # fmt: skip
    assert (first.status_code, waiting.status_code) == (200, 200)


def test_more_requests_than_may_be_answered_at_once_are_refused_and_probes_are_not(gated):
    client, gate = gated(Limits(requests=1))

    async def scenario():
        first = asyncio.ensure_future(embed(client))
        await until(lambda: gate.calls == 1)
        openai = await client.http.post("/v1/embeddings", json={"input": "a", "model": "letters"})
        probes = [await client.http.get(path) for path in ("/health", "/ready", "/metrics", "/info")]
        gate.open.set()
        return openai, probes, await first

    refused, probes, first = client.await_(scenario())
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert [probe.status_code for probe in probes] == [200] * 4
    assert first.status_code == 200


def test_bodies_together_hold_no_more_memory_than_they_may(gated):
    client, gate = gated(Limits(bodies=100))

    async def scenario():
        first = asyncio.ensure_future(embed(client, "a " * 20))
        await until(lambda: gate.calls == 1)
        refused = await embed(client, "a " * 20)
        gate.open.set()
        return refused, await first, await embed(client, "a " * 20)

    refused, first, later = client.await_(scenario())
    assert [each.status_code for each in (refused, first, later)] == [429, 200, 200]


def test_texts_that_get_no_turn_in_time_are_given_up(gated):
    client, gate = gated(Limits(seconds=0.2))

    async def scenario():
        first = asyncio.ensure_future(embed(client))
        await until(lambda: gate.calls == 1)
        late = await embed(client, "b")
        gate.open.set()
        return late, await first  # what had begun is finished, however long it took

    late, first = client.await_(scenario())
    assert (late.status_code, first.status_code) == (429, 200)
    assert "no turn came within 0.2 seconds" in late.text
    assert gate.calls == 1


def request(client, receive, path="/embed"):
    """An ASGI call of a POST: (its task, what was sent)."""
    sent = []
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http",
        "client": None, "server": None, "root_path": "",
    }  # fmt: skip

    async def send(message):
        sent.append(message)

    return asyncio.ensure_future(client.app(scope, receive, send)), sent


def test_a_client_that_leaves_is_computed_for_no_longer(gated):
    client, gate = gated()

    async def scenario():
        first = asyncio.ensure_future(embed(client))
        await until(lambda: gate.calls == 1)
        left = asyncio.Event()
        messages = iter([{"type": "http.request", "body": b'{"inputs": "b"}'}])

        async def receive():
            if (message := next(messages, None)) is None:
                await left.wait()
                return {"type": "http.disconnect"}
            return message

        task, sent = request(client, receive)
        await until(lambda: client.service.batcher.waiting_tokens == 1)
        left.set()
        await task
        waiting = client.service.batcher.waiting_tokens
        gate.open.set()
        return sent, waiting, await first

    sent, waiting, first = client.await_(scenario())
    assert (sent, waiting, first.status_code) == ([], 0, 200)
    assert gate.calls == 1
    assert 'route="embed",status="499"} 1.0' in client.get("/metrics").text


def test_a_body_that_does_not_come_in_time_is_given_up(client):
    async def scenario():
        async def never():
            await asyncio.sleep(60)

        with pytest.raises(Refusal, match="did not arrive in") as caught:
            await read_body([(b"content-type", b"application/json")], never, 100, 0.05)
        return caught.value

    refusal = client.await_(scenario())
    assert (refusal.status, refusal.headers) == (408, {"Connection": "close"})


def test_a_body_that_does_not_say_its_length_is_stopped_at_the_limit(client):
    read = []

    async def scenario():
        async def receive():
            read.append(1)
            return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

        task, sent = request(client, receive)
        await task
        return sent

    sent = client.await_(scenario())
    assert sent[0]["status"] == 413
    assert len(read) == 21  # thousands of bytes, of which 20 are let in


def test_what_fails_inside_is_for_the_log_alone(start, models, caplog):
    class Broken(Gate):
        def run(self, feed):
            raise RuntimeError("/secret/path went wrong")

    client = start(given={"letters": replace(models["letters"], bundle=Broken(models["letters"].bundle))})
    with caplog.at_level(logging.INFO, "graphwright.serve"):
        answer = client.post("/embed", inputs="a", headers={"x-request-id": "number-1"})
    assert answer.status_code == 500
    assert answer.json()["error"] == "this server failed; its log has request number-1"
    assert answer.headers["x-request-id"] == "number-1"
    failed = next(record for record in caplog.records if record.getMessage() == "failed")
    line = json.loads(JsonFormatter().format(failed))
    assert line["request"] == "number-1"
    assert "/secret/path went wrong" in line["traceback"]
    assert client.get("/health").status_code == 200


def test_one_text_that_fails_takes_no_other_request_with_it(start, models):
    bundle = models["letters"].bundle

    class Picky(Gate):
        def run(self, feed):
            self.calls += 1
            if self.calls == 1:
                self.open.wait(20)
            if (feed["input_ids"] == 2 + ord("x") - ord("a")).any():
                raise RuntimeError("no x")
            return bundle.run(feed)

    gate = Picky(bundle)
    client = start(given={"letters": replace(models["letters"], bundle=gate)})

    async def scenario():
        first = asyncio.ensure_future(embed(client))
        await until(lambda: gate.calls == 1)
        others = [asyncio.ensure_future(embed(client, text)) for text in ("b", "x", ["c", "d"])]
        await until(lambda: client.service.batcher.waiting_tokens == 4)
        gate.open.set()
        return [(await each).status_code for each in (first, *others)]

    assert client.await_(scenario()) == [200, 200, 500, 200]


def test_logs_and_metrics_tell_of_requests_and_hold_no_text(start, caplog):
    client = start()
    with caplog.at_level(logging.INFO, "graphwright.serve"):
        client.post("/embed", inputs=["a b c", "q"])
        client.post("/models/mood/embed", inputs="q r")
        client.post("/nowhere/secret")
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [(line["route"], line["status"]) for line in lines] == [
        ("embed", 200), ("embed", 424), ("none", 404),
    ]  # fmt: skip
    assert lines[1]["model"] == "mood"
    assert not any("a b c" in json.dumps(line) or "secret" in json.dumps(line) for line in lines)
    metrics = client.get("/metrics").text
    for sample in (
        'graphwright_requests_total{route="embed",status="200"} 1.0',
        'graphwright_requests_total{route="none",status="404"} 1.0',
        'graphwright_texts_total{model="letters"} 2.0',
        'graphwright_tokens_total{model="letters"} 4.0',
        'graphwright_padding_total{model="letters"} 2.0',
        'graphwright_call_texts_count{model="letters"} 1.0',
        "graphwright_waiting_tokens 0.0",
        "process_resident_memory_bytes",
    ):
        assert sample in metrics


def test_a_call_that_hangs_makes_the_server_unhealthy(gated, monkeypatch):
    client, gate = gated()

    async def scenario():
        first = asyncio.ensure_future(embed(client))
        await until(lambda: gate.calls == 1)
        monkeypatch.setattr(type(client.service.batcher), "busy_for", HANGS + 1)
        probes = [await client.http.get(path) for path in ("/health", "/ready")]
        gate.open.set()
        await first
        return probes

    for probe in client.await_(scenario()):
        assert (probe.status_code, probe.json()["error_type"]) == (503, "Unhealthy")


def test_a_full_server_is_not_ready_but_healthy(gated):
    client, gate = gated(Limits(waiting=2))

    async def scenario():
        first = asyncio.ensure_future(embed(client))
        await until(lambda: gate.calls == 1)
        second = asyncio.ensure_future(embed(client, "a b"))
        await until(lambda: client.service.batcher.waiting_tokens == 2)
        probes = [(await client.http.get(path)).status_code for path in ("/health", "/ready")]
        gate.open.set()
        await asyncio.gather(first, second)
        return probes

    assert client.await_(scenario()) == [200, 503]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer ", 401),
        (f"Bearer {KEY}x", 401),
        (f"Bearer {KEY[:-1]}", 401),
        (f"Basic {KEY}", 401),
        (KEY, 401),
        (f"Bearer {KEY}", 200),
        (f"bearer {KEY}", 200),
        ("Bearer another-key-as-good-as-that", 200),
    ],
)
def test_a_key_is_asked_for(start, given, status):
    client = start(keys=(KEY.encode(), b"another-key-as-good-as-that"))
    headers = {} if given is None else {"authorization": given}
    answer = client.post("/embed", inputs="a", headers=headers)
    assert answer.status_code == status
    assert client.get("/metrics", **headers).status_code == status
    assert client.get("/health").status_code == 200
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert KEY not in answer.text
        said = client.post("/v1/embeddings", input="a", model="letters", headers=headers).json()["error"]
        assert said["code"] == "invalid_api_key"


def test_keys_come_from_a_file_or_the_environment(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"{KEY}\n\n  second-key-of-that-length\n")
    assert read_keys(str(path), {}) == (KEY.encode(), b"second-key-of-that-length")
    assert read_keys(None, {"GRAPHWRIGHT_API_KEY": KEY}) == (KEY.encode(),)
    assert read_keys(None, {}) == ()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has none: write one a line"),
        (b"short", "is not 16 or more ASCII"),
        (b"sixteen characters with spaces", "is not 16 or more ASCII"),
        ("schlüssel-mit-umlaut".encode(), "is not 16 or more ASCII"),
        (b"\xff" * 20, "can't be read"),
        (None, "can't be read: No such file"),
    ],
)
def test_a_file_of_keys_that_would_let_everybody_in_or_nobody_is_refused(tmp_path, content, sentence):
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        read_keys(str(path), {"GRAPHWRIGHT_API_KEY": KEY})


def test_an_empty_variable_is_no_key():
    with pytest.raises(ConfigError, match="in GRAPHWRIGHT_API_KEY is not"):
        read_keys(None, {"GRAPHWRIGHT_API_KEY": ""})


def test_answers_are_rows_of_their_own(models):
    """A row that waits to be sent doesn't hold the whole call's output."""
    model = models["letters"]
    for row in model.run(model.tokenize(["a", "b"], None, False, "inputs")):
        assert row.base is None
        assert row.dtype == np.float32


def test_the_end_waits_for_what_is_computed(gated):
    client, gate = gated()

    async def scenario():
        first = asyncio.ensure_future(embed(client))
        await until(lambda: gate.calls == 1)
        messages, sent = asyncio.Queue(), []
        for kind in ("startup", "shutdown"):
            messages.put_nowait({"type": f"lifespan.{kind}"})

        async def send(message):
            sent.append(message["type"])

        ending = asyncio.ensure_future(client.app({"type": "lifespan"}, messages.get, send))
        await asyncio.sleep(0.05)
        before = list(sent)
        gate.open.set()
        await ending
        return before, sent, await first

    before, sent, first = client.await_(scenario())
    assert before == ["lifespan.startup.complete"]
    assert sent[1:] == ["lifespan.shutdown.complete"]
    assert first.status_code == 200
