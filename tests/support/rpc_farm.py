"""`python rpc_farm.py KEY PORT`: a TVM RPC tracker with one device on loopback, until stdin closes.

PORT: from which on free ones are looked for. Prints the tracker's port once the device is registered. It must
be started in a session of its own: TVM's servers outlive whoever starts them, so the whole group is ended.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager


@contextmanager
def farm(key: str):
    """A tracker's address, "HOST:PORT", where one device of that key is registered while the block runs."""
    from graphwright.backends.tvm.remote.tracker import Tracker

    first = 20000 + os.getpid() % 20000
    process = subprocess.Popen(
        [sys.executable, __file__, key, str(first)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TVM_NUM_THREADS": "1"},
    )
    try:
        address = f"127.0.0.1:{int(process.stdout.readline())}"
        with Tracker(address) as tracker:
            for _ in range(100):
                if key in tracker.keys():  # noqa: SIM118 (not a mapping)
                    break
                time.sleep(0.1)
        yield address
    finally:
        process.stdin.close()
        process.wait(20)


def main(key: str, first: int) -> None:
    from tvm.rpc.server import Server
    from tvm.rpc.tracker import Tracker

    tracker = Tracker("127.0.0.1", first, first + 40, silent=True)
    address = ("127.0.0.1", tracker.port)
    server = Server("127.0.0.1", first + 40, first + 80, tracker_addr=address, key=key, silent=True)
    print(tracker.port, flush=True)
    sys.stdin.read()
    server.terminate()


if __name__ == "__main__":
    if os.getpgid(0) != os.getpid():
        sys.exit("start it in a session of its own")
    try:
        main(sys.argv[1], int(sys.argv[2]))
    finally:
        os.killpg(0, signal.SIGKILL)
