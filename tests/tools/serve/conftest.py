"""Tiny bundles behind an application that is called without a network, and behind a real server."""

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx2
import pytest
import served
from graphwright.backends.running.runner import load
from graphwright.tools.serve.app import App
from graphwright.tools.serve.model import model
from graphwright.tools.serve.service import Limits, Service


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Directories by name: letters (an encoder), mood (a classifier), match (a reranker)."""
    home = tmp_path_factory.mktemp("served")
    prompts = {"prompts": {"query": "q "}}
    return {
        "letters": served.bundle(home / "letters", "embedding", served.WIDTH, **prompts),
        "mood": served.bundle(
            home / "mood", "sequence-classification", len(served.LABELS), labels=served.LABELS
        ),
        "match": served.bundle(home / "match", "sequence-classification", 1),
    }


class Client:
    """An application on an event loop of its own: `ask` from any test, no network between."""

    def __init__(self, models, limits, keys):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.service = self.await_(self._service(models, limits))
        self.app = App(self.service, keys)
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=True)
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://here")

    async def _service(self, models, limits):
        return Service(models, limits)

    def await_(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def post(self, path, content=None, headers=None, **json_):
        body = {"content": content} if content is not None else {"json": json_}
        headers = {"content-type": "application/json", **(headers or {})}
        return self.await_(self.http.post(path, headers=headers, **body))

    def get(self, path, **headers):
        return self.await_(self.http.get(path, headers=headers))

    def close(self):
        self.await_(self.service.close())
        self.await_(self.http.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="session")
def models(bundles):
    return {name: model(name, load(path), 64) for name, path in bundles.items()}


@pytest.fixture
def start(models):
    """start(limits, keys, models) -> Client."""
    clients = []

    def make(limits=None, keys=(), given=None):
        clients.append(Client(given or models, limits or Limits(), keys))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def client(models):
    """All three models under the usual limits."""
    made = Client(models, Limits(texts=100, body=20_000), ())
    yield made
    made.close()


class Server:
    """A real one. url; lines: of its log so far; ended(): after SIGTERM, its exit status."""

    def __init__(self, process):
        self.process, self.lines, self._seen = process, [], queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def begin(self):
        first = self.event("listening")
        self.url = f"http://{first['host']}:{first['port']}"

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            self._seen.put(line)
        self._seen.put("")

    def event(self, name):
        """The next line of the log that tells of an event."""
        while line := self._seen.get(timeout=60):
            if line.startswith("{") and json.loads(line)["event"] == name:
                return json.loads(line)
        raise AssertionError("".join(self.lines))

    def ended(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(60)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stderr.close()


@pytest.fixture(scope="session")
def serving():
    """with serving(*words, env={}) as server: the command `optimize serve` on a free port of loopback, where
    what made the bundles can't be imported."""

    @contextmanager
    def run(*words, env=None):
        code = (
            "import sys\n"
            "for name in ('torch', 'transformers', 'onnx', 'onnxscript', 'tvm'): sys.modules[name] = None\n"
            "from graphwright.tools.cli import main\n"
            "main()"
        )
        line = [sys.executable, "-c", code, "serve", *map(str, words), "--port", "0"]
        process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
        server = Server(process)
        try:
            server.begin()
            yield server
        finally:
            server.close()

    return run
