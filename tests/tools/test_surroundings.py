"""The command in poor surroundings: no home, no user, streams that are closed, ASCII or full, signals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

NOBODY = """
import os, pwd, runpy, sys
def unknown(*_):
    raise KeyError("getpwuid(): uid not found: 54321")
pwd.getpwuid = unknown
sys.argv[0] = "optimize"
runpy.run_module("graphwright.tools.cli", run_name="__main__")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import onnx
    from mutation import model_file

    path = tmp_path_factory.mktemp("model") / "encoder.onnx"
    onnx.save(onnx.load_from_string(model_file()), path)
    return path


def names(folder):
    """What lies there of ours: onnxruntime 1.31 writes a file .ses to TMPDIR, and leaves it."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".ses")


def ran(*words, env=None, code=NOBODY, **options):
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    kept.pop("GRAPHWRIGHT_CACHE", None)
    kept |= env or {}
    line = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(line, capture_output=True, env=kept, timeout=300, check=False, **options)


@pytest.mark.parametrize("home", [{}, {"HOME": "/proc/nowhere"}, {"HOME": "/dev/null"}])
def test_without_a_home_and_a_user_a_temporary_cache_is_used_and_named(model, tmp_path, home):
    (tmp_path / "tmp").mkdir()
    out = tmp_path / "out"
    words = (model, "-o", out, "--pipeline", "fold-constants", "--shapes", "1x4", "--threads", "1")
    done = ran(*words, "--quick", env={**home, "TMPDIR": str(tmp_path / "tmp")}, cwd=tmp_path)
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert "there is no home directory to write to, so measurements are kept in" in said
    assert set(names(tmp_path / "tmp")) <= {f"graphwright-cache-{os.getuid()}"}
    assert {path.name for path in tmp_path.iterdir()} == {"tmp", "out"}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_encoding_of_a_stream_is_printed_to(model, encoding):
    env = {"PYTHONIOENCODING": encoding, "HOME": "/proc/nowhere"}
    done = ran("passes", env=env)
    assert done.returncode == 0, done.stderr
    assert b"fold-constants" in done.stdout
    done = ran("passes", "--json", env=env)
    assert {entry["name"] for entry in json.loads(done.stdout.decode(encoding))} > {"to-onnx"}
    done = ran("größe/模型", "-o", "o", env=env)
    assert done.returncode == 1
    assert b"optimize: " in done.stderr
    assert b"Unicode" not in done.stderr


def test_names_of_files_that_are_no_text_are_printed(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.onnx"
    done = ran(os.fsdecode(name), "-o", tmp_path / "o", env={"HOME": str(tmp_path)})
    assert done.returncode == 1
    assert b"there is no" in done.stderr
    done = ran(os.fsdecode(name), "--dry-run", env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr


def test_who_stops_reading_has_seen_enough(tmp_path):
    line = f"{sys.executable} -m graphwright.tools.cli passes | head -c 10; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].endswith("0")


def test_a_stream_that_is_closed_is_no_error():
    line = f"exec {sys.executable} -m graphwright.tools.cli passes >&- 2>&-"
    assert subprocess.run(["bash", "-c", line], timeout=60, check=False).returncode == 0


def test_a_full_disk_behind_stdout_is_said():
    with open("/dev/full", "w") as full:
        line = [sys.executable, "-m", "graphwright.tools.cli", "passes"]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "optimize: the result can't be printed: No space left on device\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_leaves_nothing(model, tmp_path, number):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    out = tmp_path / "out"
    line = [sys.executable, "-m", "graphwright.tools.cli", str(model), "-o", str(out)]
    line += ["--pipeline", "fold-constants", "--threads", "1"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    heard = lambda: signal.signal(number, signal.SIG_DFL)  # under nohup, a hang-up is ignored from the start
    with subprocess.Popen(
        line, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heard
    ) as process:
        for sentence in process.stderr:
            if sentence.startswith("Running"):
                break
        deadline = time.monotonic() + 60
        while not names(temporary) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        errors = process.stderr.read()
        assert process.wait(60) == 128 + number, errors
    assert f"interrupted; {number.name} came, and nothing was written" in errors
    assert "Traceback" not in errors
    assert names(temporary) == []
    assert not out.exists()


def test_processes_that_the_system_does_not_allow_are_named(monkeypatch, capsys):
    from graphwright.tools.cli import app
    from typer.testing import CliRunner

    def refuse(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("graphwright.tools.verbs.passes.entry", refuse)
    result = CliRunner().invoke(app, ["passes"])
    assert result.exit_code == 1
    assert "the system allows no further process or thread: raise its limit" in result.stderr
