"""However a module is called, wrapped and typed: names, containers and types stay, or the reason is given."""

import collections
import dataclasses

import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from modules import Small, agree, floats, ids
from torch import nn

X, IDS = floats(3, 11, 4), ids(3, 11)
OTHER, OTHER_IDS = floats(2, 5, 4, seed=1), ids(2, 5, seed=1)


@dataclasses.dataclass
class Plain:
    scores: torch.Tensor
    more: tuple = ()
    count: int = 3


@dataclasses.dataclass
class Registered:
    scores: torch.Tensor
    more: tuple = ()


torch.export.register_dataclass(Registered, serialized_type_name="graphwright.tests.Registered")


def plain():
    return Small(lambda self, x: self.linear(x))


Pair = collections.namedtuple("Pair", "scores states")


@pytest.mark.parametrize(
    ("give", "names"),
    [
        (lambda y, x: Plain(y, (x + 1, x + 2)), ("scores", "more_0", "more_1")),
        (lambda y, x: Registered(y, (x + 1, x + 2)), ("scores", "more_0", "more_1")),
        (lambda y, x: Pair(y, x + 1), ("scores", "states")),
        (lambda y, x: (y, (x + 1, {"a": x + 2})), ("output_0", "output_1_0", "output_1_1_a")),
        (lambda y, x: {"inner": Plain(y), "text": "no tensor"}, ("inner_scores",)),
        (lambda y, x: [y.mean((1, 2)), y.mean()], ("output_0", "output_1")),
        (lambda y, x: (y, y), ("output_0", "output_1")),
    ],
    ids=["dataclass", "registered dataclass", "namedtuple", "nested", "in a dict", "ranks 1 and 0", "twice"],
)
def test_outputs_in_any_container_are_named_by_where_they_are(give, names):
    module = Small(lambda self, x: give(self.linear(x), x))
    program = capture(module, inputs=[X])
    assert program.outputs == names
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(_plain(module(OTHER)))
    agree(program, [OTHER], [t for t in expected if isinstance(t, torch.Tensor)])


def _plain(output):
    if dataclasses.is_dataclass(output):
        return [_plain(getattr(output, field.name)) for field in dataclasses.fields(output)]
    if isinstance(output, dict):
        return [_plain(value) for value in output.values()]
    return [_plain(value) for value in output] if isinstance(output, list | tuple) else output


@pytest.mark.parametrize(
    ("body", "inputs", "names"),
    [
        (lambda self, input, type: self.linear(input) + self.table(type), {"input": X, "type": IDS}, None),
        (lambda self, **kw: self.linear(kw["class"]) + self.table(kw["a.b"]), {"class": X, "a.b": IDS}, None),
        (
            lambda self, **kw: self.linear(kw["linear"]) + self.table(kw["self.x"]),
            {"linear": X, "self.x": IDS},
            None,
        ),
        (lambda self, *args: self.linear(args[0]) + self.table(args[1]), [X, IDS], ("args_0", "args_1")),
        (lambda self, x, *rest, by=2: self.linear(x) * by + self.table(rest[0]), [X, IDS], ("x", "rest_0")),
        (lambda self, x, *, i=None: self.linear(x) + self.table(i), {"x": X, "i": IDS}, None),
        (lambda self, x, i, /: self.linear(x) + self.table(i), {"x": X, "i": IDS}, None),
        (
            lambda self, x, state: self.linear(x) + self.table(state["i"]),
            {"x": X, "state": {"i": IDS}},
            ("x", "state_i"),
        ),
        (
            lambda self, both: self.linear(both[0]) + self.table(both[1]),
            {"both": (X, IDS)},
            ("both_0", "both_1"),
        ),
    ],
    ids=["builtins", "keywords", "inner names", "args", "args after", "by name", "by place", "dict", "tuple"],
)  # fmt: skip
def test_inputs_keep_their_names_however_forward_takes_them(body, inputs, names):
    program = capture(Small(body), inputs=inputs)
    assert tuple(spec.name for spec in program.inputs) == (names or tuple(inputs))
    assert [spec.role for spec in program.inputs] == ["hidden", "token_ids"]
    with torch.no_grad():
        module = Small(body)
        agree(
            program,
            [OTHER, OTHER_IDS],
            [module.linear(OTHER) * (2 if "rest_0" in (names or ()) else 1) + module.table(OTHER_IDS)],
        )


def test_one_tensor_alone_is_one_input_and_not_its_rows():
    assert capture(Small(lambda self, x: self.linear(x)), inputs=X).inputs[0].shape == ("batch", "length", 4)


def test_what_is_no_tensor_stays_as_in_the_example_and_is_said():
    def forward(self, x, y=None, half=False):
        z = self.linear(x) if y is None else y
        return z / 2 if half else z

    program = capture(Small(forward), inputs={"x": X, "y": None, "half": True})
    assert [spec.name for spec in program.inputs] == ["x"]
    assert program.info["notes"] == ["'half' stays True, as in the example."]
    agree(program, [OTHER], [Small(forward).linear(OTHER) / 2])


def test_an_output_never_has_an_inputs_name():
    def forward(self, x, lengths):
        return {"y": self.linear(x), "lengths": lengths}

    program = capture(Small(forward), inputs=[X, torch.tensor([11, 4, 2])])
    assert program.outputs == ("y", "lengths_out")
    assert program.info["notes"] == [
        "the output 'lengths' is called 'lengths_out', as 'lengths' is an input."
    ]


def compiled_whole(module):
    module.compile()
    return module


def compiled_part(module):
    module.linear = torch.compile(module.linear)
    return module


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, compiled_whole, compiled_part])
def test_parallel_and_compiled_modules_are_captured_as_what_is_in_them(wrap):
    program = capture(wrap(Small(lambda self, x: self.linear(x))), inputs=[X])
    agree(program, [OTHER], [plain().linear(OTHER)])
    assert program.info["source"] == "Small"


class Wrapper(nn.Module):
    """As adapters are: everything goes on to what is within."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs) * 2


def test_a_wrapper_of_ones_own_is_not_taken_off():
    program = capture(Wrapper(Small(lambda self, x: self.linear(x))), inputs={"x": X})
    assert [spec.name for spec in program.inputs] == ["x"]
    agree(program, [OTHER], [plain().linear(OTHER) * 2])


def test_hooks_run():
    module = Small(lambda self, x: self.linear(x))
    module.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    module.register_forward_hook(lambda module, args, output: output * 2)
    agree(capture(module, inputs=[X]), [OTHER], [module.linear(OTHER + 1) * 2])


def test_old_weight_norm_and_parametrizations_are_captured():
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.Conv1d(4, 4, 3))
    new = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3))
    for module in (old, new):
        with torch.no_grad():
            agree(capture(module, inputs=[X.mT]), [OTHER.mT], [module(OTHER.mT)])


@pytest.mark.parametrize(
    ("module", "inputs", "sentence"),
    [
        (torch.jit.script(nn.Linear(4, 4)), [X], "RecursiveScriptModule cannot be traced, because it"),
        (torch.jit.trace(nn.Linear(4, 4), X), [X], "because it is TorchScript, which is no Python any more"),
        (nn.Sequential(torch.jit.script(nn.Linear(4, 4))), [X], "cannot be traced, because its part '0'"),
        (lambda x: x, [X], "a function is not a model: give an nn.Module"),
        (nn.Linear(4, 4, device="meta"), [X], "the weight 'weight' of Linear is on the meta device"),
        (nn.Bilinear(4, 4, 2), [X], "Bilinear.forward needs 'input2': give an example of it."),
        (nn.Linear(4, 4), [X.numpy()], "example input 'input' is ndarray: give a torch.Tensor."),
        (nn.Linear(4, 4), [X.to_sparse()], "example input 'input' is a sparse, nested or quantized tensor"),
        (nn.Linear(4, 4), [X.to(torch.complex64)], "example input 'input' is complex"),
        (nn.Linear(4, 4), 3, "the example inputs of Linear are int: give tensors by name, or in order."),
        (
            Small(lambda self, x: torch.view_as_complex(self.linear(x).view(3, 11, 2, 2))),
            [X],
            "the output 'output' is complex",
        ),
    ],
    ids=["scripted", "jit trace", "scripted part", "function", "meta", "missing", "numpy", "sparse",
         "complex", "number", "complex output"],
)  # fmt: skip
def test_what_cannot_be_captured_is_refused_in_a_whole_sentence(module, inputs, sentence):
    with pytest.raises(CaptureError) as refused:
        capture(module, inputs=inputs)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def rotated(self, x):
    pairs = torch.view_as_complex(self.linear(x).float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * self.turns[: x.shape[1]][None]).flatten(2).type_as(x)


def turned(self, x):
    steps = torch.arange(x.shape[1])[:, None] * torch.tensor([1.0, 0.1])
    turns = torch.polar(torch.ones_like(steps), steps).unsqueeze(0)
    pairs = torch.view_as_complex(self.linear(x).unflatten(-1, (2, 2)))
    both = torch.cat([pairs * turns, pairs.conj() - pairs], -1).transpose(1, 2)
    return torch.view_as_real(both[:, 1:]).flatten(2) + (pairs * pairs.conj()).real.sum() + pairs.abs().sum()


@pytest.mark.parametrize(
    "module",
    [Small(rotated, turns=torch.polar(torch.ones(20, 2), floats(20, 2))), Small(turned)],
    ids=["from a buffer", "computed"],
)
def test_complex_rotations_are_captured_in_real_numbers(module):
    program = capture(module, inputs=[X])
    dtypes = [getattr(n.meta.get("val"), "dtype", None) for n in program.graph.graph.nodes]
    assert not [dtype for dtype in dtypes if dtype is not None and dtype.is_complex]
    with torch.no_grad():
        agree(program, [OTHER], [module(OTHER)])


def masked(self, x, mask):
    scores = (x @ x.mT).masked_fill(mask[:, None] == 0, torch.finfo(x.dtype).min)
    return scores.softmax(-1) @ self.norm(self.linear(x)), x


MASK = (torch.arange(11)[None] < torch.tensor([11, 6, 3])[:, None]).long()


@pytest.mark.parametrize(
    ("dtype", "takes", "tolerance"),
    [(torch.bfloat16, "float32", 0.03), (torch.float16, "float16", 3e-3), (torch.float64, "float64", 1e-6)],
)
def test_other_precisions_are_computed_in_float32_and_said(dtype, takes, tolerance):
    module = Small(masked, norm=nn.LayerNorm(4)).to(dtype)
    program = capture(module, inputs=[X.to(dtype), MASK])
    assert [spec.dtype for spec in program.inputs] == [takes, "int64"]
    assert f"Small computes in {str(dtype)[6:]}" in program.info["notes"][0]
    given = X[:2, :9].to(dtype)
    with torch.no_grad():
        expected = [t.to(getattr(torch, takes)) for t in module(given, MASK[:2, :9])]
    agree(program, [given.to(getattr(torch, takes)), MASK[:2, :9]], expected, tolerance)
    assert {p.dtype for p in program.graph.parameters()} == {torch.float32}
    assert module.linear.weight.dtype == dtype


def test_doubles_on_the_way_in_a_float32_module_stay():
    module = Small(lambda self, x: self.linear((x.double() * 3).float()))
    program = capture(module, inputs=[X])
    assert "notes" not in program.info
    agree(program, [OTHER], [module(OTHER)], 1e-6)


def test_a_table_in_float64_beside_float32_weights_keeps_its_precision():
    def forward(self, x):
        return self.linear(x) + (self.steps[: x.shape[1]] * 1e6).sin().float()[:, None]

    module = Small(forward, steps=torch.linspace(0, 1, 20, dtype=torch.float64))
    program = capture(module, inputs=[X])
    assert "notes" not in program.info
    agree(program, [OTHER], [module(OTHER)], 1e-6)


def test_a_choice_between_branches_by_torch_cond_runs_beside_its_trace():
    def forward(self, x, flag):
        return torch.cond(flag.sum() > 0, lambda y: y + 1, lambda y: y * 2, (self.linear(x),))

    module = Small(forward)
    program = capture(module, inputs=[X, torch.tensor([1, 2])])
    for flag in (torch.tensor([1, 1]), torch.tensor([-1, 0])):
        agree(
            program, [OTHER, flag], [module.linear(OTHER) + 1 if flag.sum() > 0 else module.linear(OTHER) * 2]
        )
