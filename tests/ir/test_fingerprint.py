"""The fingerprint: equal for equal programs, different for the smallest difference, each weight read once."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
import zoo
from graphwright.ir.fingerprint import tensor_digest
from graphwright.ir.fx import graph as fx
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser

BODY = "s = Add(x, w) a = Relu(s) b = Neg(s) y = Mul(a, b)"


def program(body=BODY, weights="float[2] w = {1, 2}", shape="n,2", opset=18) -> Program:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
        main (float[{shape}] x) => (float[{shape}] y) <{weights}> {{ {body} }}"""
    graph = ir.from_proto(parser.parse_model(text))
    return Program(graph, "onnx", (InputSpec("x", "float32", ("n", 2)),), ("y",), symbols={"n": (1, 9)})


@pytest.mark.parametrize(
    "same",
    [
        program(),
        program("sum = Add(x, w) r = Relu(sum) n = Neg(sum) y = Mul(r, n)"),
        program("s = Add(x, bias) a = Relu(s) b = Neg(s) y = Mul(a, b)", "float[2] bias = {1, 2}"),
    ],
)
def test_names_inside_do_not_matter(same):
    assert same.fingerprint() == program().fingerprint()


@pytest.mark.parametrize(
    "other",
    [
        program(weights="float[2] w = {1, 2.0000002}"),
        program(weights="float[1] w = {1}"),
        program(weights="double[2] w = {1, 2}"),
        program(weights="float[2] w = {1, 2}, float[2] unused = {0, 0}"),
        program("s = Add(w, x) a = Relu(s) b = Neg(s) y = Mul(a, b)"),
        program("s = Add(x, w) a = Relu(s) b = Neg(x) y = Mul(a, b)"),
        program("s = Add(x, w) a = Relu(s) b = Neg(s) d = Abs(s) y = Mul(a, b)"),
        program("s = Add(x, w) b = Neg(s) a = Relu(s) y = Mul(a, b)"),
        program("s = Add(x, w) a = com.microsoft.Relu(s) b = Neg(s) y = Mul(a, b)"),
        program(shape="3,2"),
        program(opset=19),
        replace(program(), outputs=("z",)),
        replace(program(), task="embedding"),
        replace(program(), symbols={"n": (1, 8)}),
        replace(program(), tokenizer={"vocab.txt": b"a"}),
        replace(program(), info={"pad_token_id": 0}),
    ],
)
def test_every_difference_shows(other):
    assert other.fingerprint() != program().fingerprint()


def test_attributes_and_subgraphs_enter():
    branch = "c = Constant<value_int=1>() f = Cast<to=9>(c) y = If(f) <then_branch = t () => (float[n,2] p) {{ p = {}(x) }}, else_branch = e () => (float[n,2] q) {{ q = Abs(w) }}>"  # noqa: E501
    bodies = [
        "s = Add(x, w) y = Softmax<axis=0>(s)",
        "s = Add(x, w) y = Softmax<axis=1>(s)",
        branch.format("Neg"),
        branch.format("Relu"),
        "c = Constant<value = float[1] {1}>() y = Add(x, c)",
        "c = Constant<value = float[1] {2}>() y = Add(x, c)",
    ]
    assert len({program(body).fingerprint() for body in bodies}) == len(bodies)


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
def test_a_clone_is_equal_and_saving_changes_nothing(dialect, tmp_path):
    original = (zoo.fx_program if dialect == "fx" else zoo.onnx_program)("nanogpt")
    assert original.clone().fingerprint() == original.fingerprint()
    if dialect == "onnx":
        path = tmp_path / "model.onnx"
        ir.save(original.graph, path, external_data="model.data", size_threshold_bytes=0)
        assert original.with_graph(ir.load(path)).fingerprint() == original.fingerprint()


def test_every_storage_of_a_weight_has_one_digest(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    path = tmp_path / "weights"
    path.write_bytes(b"before" + array.tobytes())
    digests = {
        tensor_digest(tensor)
        for tensor in (
            ir.Tensor(array),
            ir.Tensor(np.asfortranarray(array)),
            ir.ExternalTensor(
                "weights", 6, 48, ir.DataType.FLOAT, shape=ir.Shape([3, 4]), name="w", base_dir=tmp_path
            ),
            ir.LazyTensor(lambda: ir.Tensor(array), dtype=ir.DataType.FLOAT, shape=ir.Shape([3, 4])),
        )
    }
    assert len(digests) == 1
    assert tensor_digest(ir.Tensor(array.reshape(4, 3))) not in digests
    assert tensor_digest(ir.Tensor(array.view(np.int32))) not in digests


def test_a_weight_is_read_once():
    reads = []

    def read():
        reads.append(1)
        return ir.Tensor(np.ones(4, np.float32))

    lazy = ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=ir.Shape([4]), name="w")
    graph = program(weights="float[2] w = {1, 2}")
    graph.graph.graph.initializers["w"].const_value = lazy
    first = graph.fingerprint()
    assert graph.clone().fingerprint() == first
    assert len(reads) == 1


def test_writing_into_a_parameter_shows():
    original = zoo.fx_program("nanogpt")
    twin = original.clone()
    node = next(n for n in twin.graph.graph.nodes if n.op == "get_attr")
    private = torch.nn.Parameter(fx.attribute(twin.graph, node.target).detach().clone())
    fx.replace_tensor(twin.graph, node, private)
    assert twin.fingerprint() == original.fingerprint()
    with torch.no_grad():
        private.view(-1)[0] += 1
    changed = twin.fingerprint()
    assert changed != original.fingerprint()
    private.data = private.data.clone() + 1
    assert twin.fingerprint() not in (changed, original.fingerprint())
    twin.graph.get_parameter(node.target).requires_grad_(False)
    assert twin.fingerprint() != original.fingerprint()


def test_bfloat16_is_the_same_in_both_worlds():
    values = torch.tensor([1.5, -2.25], dtype=torch.bfloat16)
    array = fx.to_numpy(values)
    assert tensor_digest(values) == tensor_digest(ir.Tensor(array))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["Relu", "Neg", "Add"]), st.integers(0, 3)), min_size=1, max_size=8),
    st.integers(0, 7),
)
def test_a_round_trip_keeps_it_and_one_changed_operator_does_not(steps, at):
    def body(steps):
        names, lines = ["x"], []
        for number, (op, back) in enumerate(steps):
            operand = names[-1 - back % len(names)]
            lines.append(f"v{number} = {op}({operand}{', w' if op == 'Add' else ''})")
            names.append(f"v{number}")
        return " ".join([*lines, f"y = Identity({names[-1]})"])

    original = program(body(steps))
    again = original.with_graph(ir.from_proto(ir.to_proto(original.graph)))
    assert again.fingerprint() == original.clone().fingerprint() == original.fingerprint()
    at %= len(steps)
    other = {"Relu": "Neg", "Neg": "Relu", "Add": "Relu"}[steps[at][0]]
    changed = [(other, back) if i == at else (op, back) for i, (op, back) in enumerate(steps)]
    assert program(body(changed)).fingerprint() != original.fingerprint()
