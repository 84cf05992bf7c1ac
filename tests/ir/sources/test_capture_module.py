"""Capturing an nn.Module: the trace equals eager PyTorch at other sizes; what cannot be traced is refused."""

import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from torch import nn
from torch.nn import functional as F  # noqa: N812

TOLERANCE = 1e-5  # of max(1, |reference|)
X = {"x": torch.randn(3, 11, 4, generator=torch.Generator().manual_seed(0))}


class Layer(nn.Module):
    """A module whose forward is given: f(linear, x)."""

    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.body = nn.Linear(4, 4), body

    def forward(self, x):
        return self.body(self.linear, x)


def agree(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        a, b = a.detach(), b.detach()
        assert float(((a - b).abs() / b.abs().clamp(min=1)).max()) < TOLERANCE


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_a_trace_computes_what_eager_does_at_other_sizes(name):
    case, program = zoo.ARCHITECTURES[name], zoo.fx_program(name)
    module = case.build()
    assert program.dialect == "fx"
    assert next(iter(program.symbols)) == "batch"
    assert ("length" in program.symbols) != case.fixed
    for batch, length in ((1, 11), (5, 11)) if case.fixed else ((1, 1), (1, 8), (5, 3), (2, 19)):
        tensors = case.inputs(batch, length, seed=batch)
        with torch.no_grad():
            got = program.graph(*(tensors[spec.name] for spec in program.inputs))
            reference = module(**tensors)
        if isinstance(reference, torch.Tensor):
            reference = {"output": reference}
        agree(got, [reference[name] for name in program.outputs])


def test_inputs_and_outputs_keep_their_names_types_and_symbols():
    program = zoo.fx_program("bert")
    assert [(s.name, s.dtype, s.shape, s.role, s.high) for s in program.inputs] == [
        ("input_ids", "int64", ("batch", "length"), "token_ids", 101),
        ("attention_mask", "int64", ("batch", "length"), "attention_mask", None),
        ("token_type_ids", "int64", ("batch", "length"), "token_type_ids", 2),
    ]
    assert program.outputs == ("last_hidden_state",)
    assert program.symbols == {"batch": (1, 2**31 - 1), "length": (1, 64)}
    assert [s.role for s in zoo.fx_program("whisper").inputs] == ["audio_features"]
    assert [s.role for s in zoo.fx_program("vit").inputs] == ["pixel_values"]
    decoder = zoo.fx_program("t5").inputs[2]
    assert (decoder.role, decoder.shape) == ("decoder_token_ids", ("batch", "decoder_length"))


def test_a_table_of_computed_positions_bounds_the_length():
    assert zoo.fx_program("nanogpt").symbols["length"] == (1, 40)
    assert zoo.fx_program("roberta").symbols["length"] == (1, 64)  # 66 rows, of which two are skipped


def test_inputs_may_come_in_order_and_a_batch_of_one_stays_symbolic():
    case = zoo.ARCHITECTURES["nanogpt"]
    program = capture(case.build(), inputs=[case.inputs(1, 9)["input_ids"]])
    assert [(s.name, s.shape) for s in program.inputs] == [("input_ids", ("batch", "length"))]


def test_equal_first_axes_are_one_batch_and_unequal_lengths_stay_apart():
    module = nn.Bilinear(3, 5, 2)
    shared = capture(module, inputs=[torch.randn(4, 7, 3), torch.randn(4, 7, 5)])
    assert [s.shape for s in shared.inputs] == [("batch", "length", 3), ("batch", "length", 5)]

    class Pool(nn.Module):
        def forward(self, a, b):
            return a.mean(1) + b.mean(1)

    apart = capture(Pool(), inputs=[torch.randn(4, 7, 3), torch.randn(4, 6, 3)])
    (_, first, _), (_, second, _) = (s.shape for s in apart.inputs)
    assert (first, second) == ("length", "b_1")


def test_nested_outputs_are_flattened_and_what_is_no_tensor_is_recorded():
    module = Layer(lambda linear, x: {"y": linear(x), "count": 3, "more": (x + 1, [x + 2]), "none": None})
    program = capture(module, inputs=X)
    assert program.outputs == ("y", "more_0", "more_1_0")
    assert program.info["dropped_outputs"] == ["count"]
    agree(program.graph(X["x"])[1:], (X["x"] + 1, X["x"] + 2))


def test_capture_traces_evaluation_and_leaves_the_mode_alone():
    module = Layer(lambda linear, x: F.dropout(linear(x), 0.5, linear.training)).train()
    program = capture(module, inputs=X)
    assert module.training
    agree(program.graph(X["x"]), [module.linear(X["x"])])


def test_sizes_that_the_code_fixes_or_bounds_are_so_in_the_program():
    short = capture(Layer(lambda f, x: f(x) * 2 if x.shape[1] < 30 else f(x)), inputs=X)
    long = capture(Layer(lambda f, x: f(x) * 2 if x.shape[1] > 8 else f(x)), inputs=X)
    wide = capture(Layer(lambda f, x: F.conv1d(f(x).mT, torch.ones(4, 4, 3))), inputs=X)
    fixed = capture(Layer(lambda f, x: f(x) * float(x.shape[1])), inputs=X)
    assert short.symbols["length"] == (1, 29)
    assert long.symbols["length"] == (9, 2**31 - 1)
    assert wide.symbols["length"] == (3, 2**31 - 1)
    assert fixed.inputs[0].shape == ("batch", 11, 4)


def test_a_size_of_one_is_refused_where_the_trace_would_be_wrong():
    program = capture(Layer(lambda f, x: f(x) if x.shape[1] == 1 else f(x) * 2), inputs=X)
    assert program.symbols == {"batch": (1, 2**31 - 1), "length": (2, 2**31 - 1)}


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (None, "Layer is a module: give example inputs, capture(module, inputs={...})."),
        ({}, "Layer.forward takes x: no example input given."),
        ([X["x"], X["x"]], "Layer.forward takes x: 2 inputs given."),
        ({"y": X["x"]}, "Layer.forward has no input 'y'; there are: x"),
        ({"x": [1.0]}, "example input 'x' is list: give a torch.Tensor."),
        ({"x": torch.ones(0, 11, 4)}, "example input 'x' is empty, of shape (0, 11, 4)."),
    ],
)
def test_unusable_inputs_are_named(inputs, sentence):
    with pytest.raises(CaptureError) as refused:
        capture(Layer(lambda f, x: f(x)), inputs=inputs)
    assert str(refused.value) == sentence


def test_images_keep_their_size_where_the_code_depends_on_it():
    module = Layer(lambda f, x: f(x) if x.shape[2] % 2 else x)
    program = capture(module, inputs={"x": torch.randn(3, 2, 7, 4)})
    assert program.inputs[0].shape == ("batch", 2, 7, 4)


class Counting(nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (
            Layer(lambda f, x: f(x) if x.sum() > 0 else x),
            r"its Python code decides by the values of a tensor.*line \d+ of test_capture_module.py: ",
        ),
        (
            Layer(lambda f, x: f(x) + torch.tensor(x.detach().numpy())),
            "cannot trace Layer: it leaves torch for NumPy",
        ),
        (Layer(lambda f, x: f(x[..., :3])), "Layer fails on its example inputs: mat1 and mat2"),
        (Layer(lambda f, x: 3), "gives int, and no tensor in it"),
        (Layer(lambda f, x: None), "gives NoneType, and no tensor in it"),
        (Counting(), "Counting changes its attribute 'calls' when it runs, and its outputs depend"),
    ],
)
def test_what_cannot_be_traced_faithfully_is_refused_in_one_line(module, sentence, capfd):
    with pytest.raises(CaptureError, match=sentence) as refused:
        capture(module, inputs=X)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_weight_is_named(bad):
    module = Layer(lambda f, x: f(x))
    module.linear.weight.data[2, 1] = bad
    with pytest.raises(CaptureError, match=r"^the weight 'linear\.weight' holds NaN or infinity"):
        capture(module, inputs=X)


def test_what_only_a_dropout_reads_is_left_out():
    """LiLT's last layer computes a stream that nobody reads, through dropouts: to torch they are effects."""

    class Unread(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.unread = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x):
            torch.nn.functional.dropout(self.unread(x).relu_(), 0.1, self.training)
            return torch.nn.functional.dropout(self.read(x), 0.3 if self.training else 0.0, self.training)

    program = capture(Unread(), inputs={"x": torch.ones(2, 3, 4)})
    assert [name for name, _ in program.graph.named_parameters()] == ["read.weight", "read.bias"]
    nodes = [node for node in program.graph.graph.nodes if node.target is torch.ops.aten.dropout.default]
    assert [node.args[1] for node in nodes] == [0.3]
