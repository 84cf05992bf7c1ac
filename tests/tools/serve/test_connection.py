"""What comes over a connection and is no request, or never becomes one."""

import asyncio
import json
import socket
import threading
import time

import pytest
import uvicorn
from graphwright.tools.serve import connection
from graphwright.tools.serve.connection import Connection


@pytest.fixture
def server(monkeypatch):
    """One that reads bodies and answers with as many bytes as the path says, patient for 0.4 s."""
    monkeypatch.setattr(connection, "SECONDS", 0.4)

    async def app(scope, receive, send):
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        content = b"x" * int(scope["path"][1:] or 0) or str(size).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": content})

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=Connection, ws="none", log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    server.address = listening.getsockname()
    yield server
    server.should_exit = True
    thread.join()


@pytest.fixture
def address(server):
    return server.address


def exchange(address, *parts, receive=True):
    """All that comes back for bytes sent."""
    answer = b""
    with socket.create_connection(address, timeout=10) as client:
        try:
            for part in parts:
                client.sendall(part)
            while receive and (more := client.recv(1 << 16)):
                answer += more
        except (BrokenPipeError, ConnectionResetError):
            pass
    return answer


def drained(client):
    """How many bytes come until the other side ends it."""
    size = 0
    try:
        while part := client.recv(1 << 20):
            size += len(part)
    except ConnectionResetError:
        pass
    return size


def refused(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    return int(head.split()[1]), json.loads(body)["error"]


GET = b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n"


def test_requests_are_answered(address):
    assert exchange(address, GET + b"\r\n").endswith(b"\r\n1\r\n0\r\n0\r\n\r\n")
    chunks = [b"a\r\n0123456789\r\n"] * 3 + [b"0\r\n\r\n"]
    head = b"POST / HTTP/1.1\r\nhost: here\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    assert b"\r\n30\r\n" in exchange(address, head, *chunks)


@pytest.mark.parametrize("data", [b"garbage\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9\r\n\r\n"])
def test_what_is_no_http_is_answered_in_json(address, data):
    assert refused(exchange(address, data)) == (400, "this is no HTTP request")


def test_a_head_without_end_is_cut_off(address):
    lines = [b"x-%d: %s\r\n" % (i, b"y" * 8000) for i in range(200)]
    answer = exchange(address, GET, *lines)
    assert not answer or refused(answer) == (431, "the head of the request is too large")


def test_what_follows_a_chunked_body_is_cut_off_too(address):
    head = b"POST / HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    lines = [b"x-%d: %s\r\n" % (i, b"y" * 8000) for i in range(200)]
    answer = exchange(address, head, *lines)
    assert b"200 OK" not in answer


@pytest.mark.parametrize("data", [b"", b"GET / HT"])
def test_a_head_that_never_ends_is_given_up(address, data):
    assert refused(exchange(address, data)) == (408, "no request came within 0.4 seconds")


def test_a_second_head_that_never_ends_is_given_up(address):
    first = GET.replace(b"connection: close\r\n", b"") + b"\r\n"
    answer = exchange(address, first + b"GET / HT")
    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.count(b"HTTP/1.1 408") == 1


def test_who_reads_no_answer_is_left(server):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(server.address)
        client.sendall(GET.replace(b"/ ", b"/50000000 ", 1) + b"\r\n")
        for connected in (False, True):  # it comes, and is left
            for _ in range(2000):
                if bool(server.server_state.connections) is not connected:
                    break
                time.sleep(0.01)
        assert drained(client) < 50_000_000
