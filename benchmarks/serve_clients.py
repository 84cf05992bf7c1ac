"""Clients of a server of vectors, light enough to share two cores with it: keep-alive HTTP/1.1 over asyncio.

Used by benchmarks/serve.py.
"""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field


@dataclass
class Seen:
    """seconds: each answer's, from when it was due. statuses: how many of each; 0 for a connection that
    ended. wrong: answers with other content than expected."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: int = 0

    def quantile(self, share: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


class Connection:
    """One kept-alive connection."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port, self.reader, self.writer = host, port, None, None

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        head = f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
        self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
        content = await self.reader.readexactly(length)
        if b"connection: close" in answer:
            self.drop()
        return int(answer.split()[1]), content

    def drop(self) -> None:
        """End it, whatever is on its way."""
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None


async def load(host, port, path, bodies, clients, seconds, rate=None, check=None, leave=0.0) -> Seen:
    """What `clients` see in some seconds, each sending one request after another, or by the clock.

    Args:
        bodies: requests to draw from: bytes.
        rate: requests a second in all, sent when they are due however long others take; None: each client
            sends its next as soon as it has an answer.
        check: (body, status, content) -> whether that is a right answer.
        leave: share of requests whose client goes away before it has the answer.
    """
    seen, end = Seen(), time.perf_counter() + seconds

    async def client(number: int) -> None:
        dice, connection = random.Random(number), Connection(host, port)
        due = time.perf_counter() + (dice.random() * clients / rate if rate else 0.0)
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            body = dice.choice(bodies)
            try:
                if dice.random() < leave:
                    await asyncio.wait_for(connection.post(path, body), dice.random() * 0.01)
                status, content = await connection.post(path, body)
            except TimeoutError:
                connection.drop()
            except (OSError, asyncio.IncompleteReadError):
                connection.drop()
                seen.statuses[0] = seen.statuses.get(0, 0) + 1
            else:
                seen.seconds.append(time.perf_counter() - due)
                seen.statuses[status] = seen.statuses.get(status, 0) + 1
                seen.wrong += check is not None and not check(body, status, content)
            due = due + clients / rate if rate else time.perf_counter()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return seen


def vectors(content: bytes) -> list[list[float]]:
    """Of an answer in text-embeddings-inference's form or OpenAI's."""
    found = json.loads(content)
    return [each["embedding"] for each in found["data"]] if isinstance(found, dict) else found
