"""Capturing .pt2 files of torch.export.save: loaded when that unpickles and evaluates nothing."""

import json
import pickle
import shutil
import zipfile

import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from graphwright.ir.inputs.extents import extents
from torch import nn

TOLERANCE = 1e-5  # of max(1, |reference|)


def save(module, path, inputs, dynamic=None):
    program = torch.export.export(module, (), inputs, dynamic_shapes=dynamic, strict=False)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    case, auto = zoo.ARCHITECTURES["bert"], torch.export.Dim.AUTO
    inputs = case.inputs(2, 7)
    path = tmp_path_factory.mktemp("pt2") / "bert.pt2"
    return save(case.build(), path, inputs, {name: {0: auto, 1: auto} for name in inputs})


def test_an_exported_program_computes_what_the_module_does(bert):
    program, case = capture(bert), zoo.ARCHITECTURES["bert"]
    assert (program.dialect, program.outputs) == ("fx", ("last_hidden_state",))
    assert [(s.name, s.shape, s.role) for s in program.inputs] == [
        ("input_ids", ("batch", "length"), "token_ids"),
        ("attention_mask", ("batch", "length"), "attention_mask"),
        ("token_type_ids", ("batch", "length"), "token_type_ids"),
    ]
    assert program.symbols["length"] == (1, 64)
    for batch, length in ((1, 1), (3, 19)):
        feed = case.inputs(batch, length)
        with torch.no_grad():
            (got,), wanted = program.graph(*feed.values()), case.build()(**feed).last_hidden_state
        assert float(((got - wanted).abs() / wanted.abs().clamp(min=1)).max()) < TOLERANCE


def test_what_was_fixed_when_it_was_saved_stays_fixed(tmp_path):
    path = save(nn.Linear(4, 2), tmp_path / "m.pt2", {"input": torch.zeros(3, 4)})
    program = capture(path, task="features")
    assert (program.inputs[0].shape, dict(program.symbols)) == ((3, 4), {})
    (note,) = program.info["notes"]
    assert note == (
        "axis 0 of 'input' is fixed at 3, as the file states it: other calls are refused; for those, export "
        "the model anew with dynamic_shapes."
    )
    assert {each.reason for each in extents(program) if each.name == "input"} == {"the file states it"}


def test_of_free_sizes_nothing_is_warned(bert):
    assert "notes" not in capture(bert).info


def refusal(path) -> str:
    with pytest.raises(CaptureError) as refused:
        capture(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_archive_is_called_so(bert, tmp_path, share):
    data = bert.read_bytes()
    (tmp_path / "m.pt2").write_bytes(data[: int(share * len(data))])
    assert refusal(tmp_path / "m.pt2").startswith(f"'{tmp_path / 'm.pt2'}' is truncated")
    assert refusal(tmp_path / "none.pt2") == f"there is no '{tmp_path / 'none.pt2'}'."


def rewritten(source, path, change=None, extra=()):
    """A copy of an archive with its entries changed by change(inner name, bytes) and some added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for entry in old.namelist():
            data = old.read(entry)
            new.writestr(entry, change(entry.partition("/")[2], data) if change else data)
        for inner, data in extra:
            new.writestr(f"{root}/{inner}", data)
    return path


class Malice:
    """Pickled, it creates a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


def test_pickles_in_the_archive_do_not_run(bert, tmp_path):
    trace = tmp_path / "ran"
    torch.save({"x": Malice(trace)}, tmp_path / "evil.pt")
    evil = (tmp_path / "evil.pt").read_bytes()

    def sample(name, data):
        return evil if name.startswith("data/sample_inputs/") and data else data

    def weights(name, data):
        if not name.endswith("weights_config.json"):
            return data
        config = json.loads(data)
        next(iter(config["config"].values()))["use_pickle"] = True
        return json.dumps(config).encode()

    path = tmp_path / "m.pt2"
    assert "pickled objects among its sample inputs" in refusal(rewritten(bert, path, sample))
    assert "as a pickle: loading would run it" in refusal(rewritten(bert, path, weights))
    extra = [("data/weights/evil.pt", pickle.dumps(Malice(trace)))]
    assert "pickled tensors (data/weights/evil.pt)" in refusal(rewritten(bert, path, extra=extra))
    extra = [("data/aotinductor/model/x.so", b"\x7fELF")]
    assert "holds compiled code" in refusal(rewritten(bert, path, extra=extra))
    assert not trace.exists()


@pytest.mark.parametrize(
    "expression",
    ["__import__('os').system('true')", "open('x')", "(lambda: 0)()", "s0.__class__", "[1][0]", "'a' * 9"],
)
def test_size_expressions_that_are_no_arithmetic_are_not_evaluated(bert, tmp_path, expression):
    def change(name, data):
        if not name.startswith("models/"):
            return data

        def walk(value):
            if isinstance(value, dict):
                return {k: expression if k == "expr_str" else walk(v) for k, v in value.items()}
            return [walk(v) for v in value] if isinstance(value, list) else value

        return json.dumps(walk(json.loads(data))).encode()

    assert "has a size that is no arithmetic" in refusal(rewritten(bert, tmp_path / "m.pt2", change))


def test_operators_that_are_not_atens_are_named(bert, tmp_path):
    def change(name, data):
        return data.replace(b"torch.ops.aten.linear.default", b"torch.ops.evil.linear.default")

    sentence = "calls torch.ops.evil.linear.default, which is none of ATen's operators"
    assert sentence in refusal(rewritten(bert, tmp_path / "m.pt2", change))


def test_other_archives_are_refused(bert, tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "jit.pt2")
    assert "is truncated, or not of torch.export.save's present format" in refusal(tmp_path / "jit.pt2")
    shutil.make_archive(str(tmp_path / "z"), "zip", bert.parent)
    (tmp_path / "z.zip").rename(tmp_path / "z.pt2")
    assert "is truncated, or not of torch.export.save's present format" in refusal(tmp_path / "z.pt2")
    extra = [("models/other.json", b"{}")]
    assert "holds 2 programs" in refusal(rewritten(bert, tmp_path / "two.pt2", extra=extra))


def test_a_program_that_changes_its_buffers_is_refused(tmp_path):
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("n", torch.zeros(1))

        def forward(self, x):
            self.n.add_(1)
            return x + self.n

    path = save(Counter(), tmp_path / "m.pt2", {"x": torch.zeros(2, 3)})
    assert "changes its own buffers or inputs when it runs" in refusal(path)
