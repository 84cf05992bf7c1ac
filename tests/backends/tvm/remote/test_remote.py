"""Bundles timed through TVM's RPC: a tracker and a server of its own, on loopback."""

import json
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import rpc_farm
from graphwright.backends.measuring.measure import Workload, compare
from graphwright.backends.target import detect, named
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.remote import device as device_module
from graphwright.backends.tvm.remote.device import Device
from graphwright.backends.tvm.remote.timing import contestants
from graphwright.backends.tvm.remote.tracker import Tracker
from graphwright.ir.errors import MeasureError

KEY = "loopback"


@pytest.fixture(scope="module")
def farm():
    """The tracker's address; one device, KEY, is registered there."""
    with rpc_farm.farm(KEY) as address:
        yield address


@pytest.fixture(scope="module")
def bundle(artifact, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "compiled"
    artifact.save(path)
    return path


@pytest.fixture
def device(farm):
    """Given back after each test, and to be had again for the next."""
    with Device(farm, KEY, threads=1, wait=20) as lent:
        yield lent


def test_the_device_answers_as_this_machine_does(device, bundle, artifact, make):
    remote = contestants(device)("it", "bundle", bundle, 1)
    for feed in (make.feed(4, 12, 5), make.feed(1, 4)):
        (found,) = remote.run(feed)
        np.testing.assert_allclose(found, artifact.run(feed)["embedding"], rtol=1e-6, atol=1e-6)


def test_every_call_is_timed_there(device, bundle, make):
    works = [Workload("1x4", make.feed(1, 4)), Workload("9x5", make.feed(9, 5))]  # the second in three pieces
    again = bundle.parent / "link"
    again.symlink_to(bundle)
    result = compare(
        {"a": bundle, "b": again}, works, threads=1, rounds=3, runs=4, seconds=0.2, start=contestants(device)
    )
    for row in result.cells.values():
        assert 0 < row["1x4"].ms < row["9x5"].ms < 1000
    assert result.peak_bytes == {"a": 0, "b": 0}


def test_a_library_for_another_machine_is_refused(device, make, tmp_path):
    foreign = named("aarch64-neon" if detect().arch == "x86_64" else "x86-64-avx2")
    Tvm().build(make.encoder(), foreign, 1, buckets=[{"batch": 1, "length": 4}]).save(tmp_path / "foreign")
    with pytest.raises(MeasureError, match=rf"{KEY} can't load it, .*{foreign.arch}"):
        contestants(device)("it", "bundle", tmp_path / "foreign", 1)


def test_only_compiled_bundles_run_there(device, tmp_path):
    with pytest.raises(MeasureError, match=r"it is no bundle; only bundles of the tvm backend"):
        contestants(device)("it", "torch", tmp_path, 1)


def test_an_unknown_key_is_named_with_those_there_are(farm):
    with pytest.raises(MeasureError, match=rf"has no device 'phone'; there are: {KEY}$"):
        Device(farm, "phone", 1)


def test_waiting_for_a_device_ends(farm, device):
    begin = time.perf_counter()
    with pytest.raises(MeasureError, match=rf"no device '{KEY}' became free within 1 s"):
        Device(farm, KEY, 1, wait=1)
    assert time.perf_counter() - begin < 20


def test_where_no_tracker_is_one_is_suggested():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MeasureError, match=rf"no TVM RPC tracker answers at 127.0.0.1:{port} .*rpc_tracker"):
        Tracker(f"127.0.0.1:{port}")


@pytest.mark.parametrize("answer", [b"HTTP", b"no", b""])
def test_another_kind_of_server_is_told_apart(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(4)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(MeasureError, match=r"no TVM RPC tracker"):
            Tracker(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()


@pytest.mark.parametrize("address", ["", "host", "host:", ":9190", "host:port", "host:0", "host:70000"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(MeasureError, match=r"no address of a tracker; write HOST:PORT"):
        Tracker(address)


def test_a_session_ends_by_itself(farm, bundle, make, monkeypatch):
    monkeypatch.setattr(device_module, "SESSION", 1.0)
    with Device(farm, KEY, threads=1, wait=20) as lent:
        loaded = contestants(lent)("it", "bundle", bundle, 1)
        time.sleep(1.5)
        with pytest.raises(MeasureError, match=rf"the device {KEY} can't run it: \S"):
            loaded.run(make.feed(1, 4))


def optimize(*words):
    line = [sys.executable, "-m", "graphwright.tools.cli", "bench", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


def test_bench_reports_the_device(farm, bundle):
    done = optimize(bundle, "--rpc", farm, "--device", KEY, "--shapes", "1x4", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["device"] == f"{KEY} of {farm}"
    assert found["threads"] == 1
    assert found["contestants"][str(bundle)]["workloads"]["1x4"]["ms"] > 0


def test_bench_says_in_a_sentence_what_is_wrong(farm, bundle):
    done = optimize(bundle, "--rpc", farm, "--device", "phone", "--shapes", "1x4")
    assert done.returncode == 1
    assert f"has no device 'phone'; there are: {KEY}" in done.stderr
    assert "Traceback" not in done.stderr
    assert optimize(bundle, "--rpc", farm).returncode == 2
