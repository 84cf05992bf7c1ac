"""`optimize MODEL` and `optimize VERB`: what the first word means, and what comes out at the end."""

import json
import subprocess
import sys
from dataclasses import fields

import pytest
import yaml
from graphwright.backends.target import NAMES
from graphwright.passes.manager.registry import resolve


def test_no_arguments_show_help(invoke):
    result = invoke()
    assert result.exit_code == 0
    for expected in ("MODEL", "--preset", "--max-drop", "demo", "inspect", "verify", "Exit status"):
        assert expected in result.output
    assert "<model>" not in result.output


def test_help_and_listings_import_nothing_heavy():
    check = (
        "import sys\n"
        "from graphwright.tools.cli import app\n"
        "from typer.testing import CliRunner\n"
        "for words in (['--help'], ['passes'], ['passes', 'fold-constants'], ['demo', '--help']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0, words\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'transformers', 'onnx_ir', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_first_word_that_is_no_verb_is_a_model(invoke):
    result = invoke("some/model", "--dry-run", "--seed", 3)
    assert result.exit_code == 0
    assert yaml.safe_load(result.output)["model"] == "some/model"
    result = invoke("--dry-run", "some/model")
    assert yaml.safe_load(result.output)["model"] == "some/model"


def test_verbs_win_over_paths_of_the_same_name(invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "passes").mkdir()
    assert "fold-constants" in invoke("passes").output
    assert yaml.safe_load(invoke("./passes", "--dry-run").output)["model"] == "./passes"


def test_a_mistyped_verb_is_named_with_the_nearest(invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("inspcet", "x")
    assert result.exit_code == 2
    assert "did you mean 'inspect'?" in result.stderr
    (tmp_path / "demos").mkdir()
    assert invoke("demos", "--dry-run").exit_code == 0


def test_what_dry_run_prints_asks_for_the_same_run(invoke, tmp_path):
    words = (
        "m",
        "-o",
        "out",
        "--preset",
        "exact",
        "--shapes",
        "1x16,mixed:4",
        "--threads",
        3,
        "--max-drop",
        0.5,
    )
    first = invoke(*words, "--data", "d.csv", "--columns", "text=a,label=2", "--dry-run")
    assert first.exit_code == 0, first.output
    (tmp_path / "run.yaml").write_text(first.output)
    again = invoke("--config", tmp_path / "run.yaml", "--dry-run")
    assert again.output == first.output
    # The command line wins, and a pipeline replaces the file's preset.
    other = invoke("--config", tmp_path / "run.yaml", "--pipeline", "to-onnx", "--threads", 1, "--dry-run")
    settings = yaml.safe_load(other.output)
    assert (settings["pipeline"], settings["threads"], settings["max-drop"]) == ("to-onnx", 1, 0.5)
    assert "preset" not in settings


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["m", "--presett", "exact"], "No such option"),
        (["m"], "name the bundle's directory with -o OUT"),
        (["--dry-run"], "name a MODEL"),
        (["m", "--columns", "text", "--dry-run"], "role=column"),
        (["m", "--threads", "two"], "--threads"),
        (["inspect"], "MODEL"),
        (["verify", "a", "b", "--tolerance", "nan"], "write a number from 0"),
        (["bench", "a", "--seed", "-1"], "--seed"),
        (["tune", "a", "--trials", "1000000000"], "--trials"),
    ],
)
def test_wrong_usage_exits_2(invoke, words, sentence):
    result = invoke(*words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["m", "--preset", "fats", "--dry-run"], "'exact', 'bfloat16', 'balanced', 'fast' or 'small'"),
        (["m", "--shapes", "12", "--data", "d", "--columns", "txt=a", "--dry-run"], "did you mean 'text'?"),
        (["m", "--config", "absent.yaml"], "no such configuration file: absent.yaml"),
        (["m", "--target", "x86-64-avx", "--dry-run"], "did you mean 'x86-64-avx2'?"),
        (["passes", "fold-constant"], "did you mean 'fold-constants'?"),
        (["m", "-o", "o", "--pipeline", "fold-constant"], "did you mean 'fold-constants'?"),
        (["m", "--dry-run", "--pipeline", "fold-constant"], "did you mean 'fold-constants'?"),
        (["m", "--dry-run", "--pipeline", "fold-constants"], "insert to-onnx before 'fold-constants'"),
        (["m.onnx", "-o", "o", "--pipeline", "to-onnx"], "start from a PyTorch or Hugging Face model"),
        (["m", "-o", "o", "--pipeline", "prune-layers{keep=3}"], "end it with to-onnx"),
        (["m", "-o", "/proc/none/o"], "can't be written to /proc/none/o"),
        (["m", "-o", "o", "--dump", "/proc/none/d"], "dump: /proc/none/d can't be written to"),
        (["m", "-o", "o", "--reproduce", "/proc/none/d"], "reproduce: /proc/none/d can't be written to"),
        (["passes", "fold-constants,to-onnx", "--on", "m"], "name one pass to try, not 2"),
        (["m", "-o", "o", "--data", "d.parquet"], "ends in none of them"),
        (["m", "-o", "o", "--calibrate", "absent.txt"], "no such data file: absent.txt"),
        (["m", "--dry-run", "--shapes", ""], "name at least one shape"),
        (["m", "--dry-run", "--shapes", "1x8,"], "'' is no shape"),
        (["m", "--dry-run", "--shapes", "99999x64"], "6,399,936 tokens; name one of at most 131,072"),
        (["m", "--dry-run", "--shapes", "mixed:999999"], "999,999 rows; name one of at most 1,024"),
        (["m", "--dry-run", "--shapes", "99999"], "99,999 rows; name one of at most 1,024"),
        (["bench", "m", "--shapes", "9999x9999"], "name one of at most 131,072"),
        (["m", "--dry-run", "--threads", "1025"], "four for each CPU that this process may use"),
        (["bench", "m", "--threads", "1025"], "four for each CPU that this process may use"),
        (["m", "--dry-run", "--threads", "-1"], "threads: input should be greater than or equal to 1"),
        (["m", "--dry-run", "--max-drop", "inf"], "max-drop: input should be a finite number"),
        (["m", "--dry-run", "--max-drop", "nan"], "max-drop: input should be a finite number"),
        (["m", "--dry-run", "--samples", "-1"], "samples: input should be greater than or equal to 2"),
        (
            ["m", "--dry-run", "--samples", "99999999"],
            "samples: input should be less than or equal to 1000000",
        ),
        (
            ["m", "--dry-run", "--seed", "4294967296"],
            "seed: input should be less than or equal to 4294967295",
        ),
        (["m", "-o", "o", "--pipeline", "fold-constants{lmit=3}"], "has no option 'lmit'"),
        (["no/such/model", "-o", "o"], "no/such/model"),
    ],
)
def test_an_error_is_one_sentence_on_stderr_and_exits_1(invoke, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    result = invoke(*words)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.startswith("optimize: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_printed_and_nothing_heavy_loaded():
    check = (
        "import sys\n"
        "from graphwright.tools.cli import app\n"
        "from typer.testing import CliRunner\n"
        "result = CliRunner().invoke(app, ['--version'])\n"
        "assert result.exit_code == 0 and result.stdout.startswith('graphwright 0.'), result.output\n"
        "assert not {'numpy', 'torch', 'onnx', 'onnxruntime', 'pydantic'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_debug_shows_where(invoke):
    result = invoke("passes", "nope", "--debug")
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "PipelineError"


def test_passes_describes_one_and_lists_all_as_json(invoke):
    described = invoke("passes", "fold-constants").output
    assert "exact" in described.lower()
    listed = json.loads(invoke("passes", "--json").output)
    assert [entry["name"] for entry in listed] == sorted(entry["name"] for entry in listed)
    assert all(entry["doc"] and entry["effect"] for entry in listed)
    for entry in listed:  # read from the source, those of a base included
        options = [
            field.name.removesuffix("_") for field in fields(resolve(entry["name"]))
        ]  # from, not from_
        assert [option.partition(":")[0] for option in entry["options"]] == options


def test_short_help_targets_and_completion(command):
    assert command("-h").stdout == command("--help").stdout
    assert "Time models side by side" in command("bench", "-h").stdout
    listed = command("targets", "--json")
    assert [target["name"] for target in json.loads(listed.stdout)] == ["host", *NAMES]
    assert "aarch64-dotprod" in command("targets").stdout
    script = command("completion", "bash").stdout
    assert "complete -o default -F _optimize_completion optimize" in script
    for words, place, wanted in (("optimize insp", 1, "inspect"), ("optimize model --pres", 2, "--preset")):
        asked = {"_OPTIMIZE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
        assert command(env=asked).stdout.split() == [wanted]
