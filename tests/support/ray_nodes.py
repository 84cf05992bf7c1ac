"""A Ray of several nodes on this machine: real `ray start` processes that talk on loopback alone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

MEMORY = 80 << 20  # bytes of shared memory a node
# Nothing is told to anyone, no process is started before it is needed, and a lost node is noticed soon.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_enable_metrics_collection": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_health_check_period_ms": "500",
}


class Nodes:
    """address: of the head. Node n is at 127.0.0.n+2: Ray takes 127.0.0.1 for the machine's other address."""

    def __init__(self, folder, environment):
        self._folder, self._environment = folder, environment
        with socket.socket() as one:
            one.bind(("127.0.0.2", 0))
            self.address = f"127.0.0.2:{one.getsockname()[1]}"
        self.processes = []

    def start(self, resources):
        number = len(self.processes)
        line = ["--num-cpus=1", f"--object-store-memory={MEMORY}", "--disable-usage-stats", "--block"]
        line += [f"--resources={json.dumps(resources)}", f"--node-ip-address=127.0.0.{number + 2}"]
        if number == 0:
            line += ["--head", f"--port={self.address.split(':')[1]}", "--include-dashboard=false"]
            line += [f"--temp-dir={self._folder}"]
        else:
            line += [f"--address={self.address}"]
        command = [str(Path(sys.executable).with_name("ray")), "start", *line]
        environment = {**os.environ, **SETTINGS, **self._environment}
        with Path(self._folder, f"node{number}.log").open("w") as log:
            self.processes.append(
                subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
            )

    def kill(self, number):
        """Everything of a node, as when a machine goes."""
        for one in _family(self.processes[number]):
            one.kill()

    def stop(self):
        """As `ray stop`, for these nodes alone. Gives the processes that were still there after it."""
        families = [one for each in self.processes for one in _family(each)]
        for one in self.processes:
            one.terminate()
        _, left = psutil.wait_procs(families, timeout=15)
        for one in left:
            one.kill()
        for one in self.processes:
            one.wait()
        return left


def _family(process):
    try:
        one = psutil.Process(process.pid)
        return [*one.children(recursive=True), one]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def nodes(*resources, paths=()):
    """Nodes with these resources, which find modules in `paths` too; joined by what reads RAY_ADDRESS."""
    folder = tempfile.mkdtemp(prefix="gw-ray-", dir="/tmp")  # sockets' paths may have 107 bytes
    python_path = os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")])
    found = Nodes(folder, {"PYTHONPATH": python_path})
    before = {name: os.environ.get(name) for name in ("RAY_ADDRESS", *SETTINGS)}
    os.environ.update(SETTINGS, RAY_ADDRESS=found.address)
    try:
        for one in resources:
            found.start(one)
        _until_up(found, len(resources))
        yield found
    finally:
        found.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        shutil.rmtree(folder, ignore_errors=True)


def _until_up(found, count):
    import ray

    host, port = found.address.split(":")
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), 1).close()
            break
        except OSError:
            time.sleep(0.2)
    ray.init(address=found.address, log_to_driver=False, logging_level="error")
    try:
        while sum(one["Alive"] for one in ray.nodes()) < count:
            assert time.monotonic() < deadline, "the nodes did not come up"
            time.sleep(0.1)
    finally:
        ray.shutdown()
