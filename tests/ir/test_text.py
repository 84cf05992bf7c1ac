"""The printer: one text for one program in every process, short, and a diff that shows a rewrite."""

import numpy as np
import onnx_ir as ir
import torch
import zoo
from graphwright.ir.program import Program
from graphwright.ir.text import diff, text
from graphwright.ir.view import view
from onnx import numpy_helper, parser


def program(body, weights=None, signature="(float[batch,length,4] x) => (float[] y)"):
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> main {signature} {{ {body} }}')
    for name, array in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    graph = ir.from_proto(model)
    return Program(graph, "onnx", (), tuple(v.name for v in graph.graph.outputs))


def lines(*args, **options):
    return text(program(*args, **options)).splitlines()


def test_a_program_reads_like_this():
    body = """half = Constant<value_float=0.5>() h = MatMul(x, w) s = Mul(h, half)
        t = Transpose<perm=[0,2,1]>(s) a, b = Split<axis=1, num_outputs=2>(t) y = Concat<axis=-1>(b, a)"""
    assert lines(body, {"w": np.eye(4, dtype=np.float32)}) == [
        "onnx features",
        "%x: f32[batch,length,4]",
        "%h: f32[batch,length,4] = matmul(%x, w: f32[4,4] #1d6f34)",
        "%s: f32[batch,length,4] = mul(%h, 0.5)",
        "%t: f32[batch,4,length] = transpose(%s) {perm=[0,2,1]}",
        "%a: f32[batch,2,length] = split(%t) {axis=1, sizes=[2,2]}",
        "%b: f32[batch,2,length] = split.1(%t) {axis=1, sizes=[2,2]}",
        "%y: f32[batch,2,?] = concat(%b, %a) {axis=2}",
        "return y=%y",
    ]


def test_small_constants_are_written_out_and_weights_by_their_digest():
    assert "add(%x, -2.5)" in lines("y = Add(x, c)", {"c": np.array([[-2.5]], np.float32)})[2]
    assert "[1,0,2]" in lines("y = Gather<axis=2>(x, c)", {"c": np.array([1, 0, 2])})[2]
    first, second = (lines("y = Add(x, c)", {"c": np.full(4, v, np.float32)})[2] for v in (1, 2))
    assert first.split("#")[0] == second.split("#")[0]
    assert first != second


def test_the_text_of_a_clone_is_the_same_and_of_another_model_is_not():
    source = zoo.fx_program("nanogpt")
    assert text(source.clone()) == text(source)
    changed = source.clone()
    weight = next(node for node in changed.graph.graph.nodes if node.op == "get_attr")
    from graphwright.ir.fx import graph as fx

    tensor = fx.attribute(changed.graph, weight.target).detach().clone()
    tensor.view(-1)[0] += 1
    fx.replace_tensor(changed.graph, weight, torch.nn.Parameter(tensor))
    assert text(changed) != text(source)


def test_a_line_a_value_and_no_long_ones():
    for source in (zoo.fx_program("bert"), zoo.onnx_program("bert")):
        found = text(source).splitlines()
        assert found[0] == f"{source.dialect} features"
        assert len(found) == 2 + sum(value.op != "const" for value in view(source))
        assert max(map(len, found)) < 250
        assert found[-1].startswith("return last_hidden_state=%")


def test_every_operand_was_defined_on_an_earlier_line():
    import re

    for source in (zoo.fx_program("t5"), zoo.onnx_program("t5")):
        defined = set()
        for line in text(source).splitlines()[1:]:
            head, _, rest = line.partition(": ") if line.startswith("%") else ("", "", line)
            used = set(re.findall(r"%([\w.:/-]+)", rest))
            assert used <= defined, line
            defined.add(head.removeprefix("%"))


def test_a_diff_shows_the_lines_that_changed():
    before, after = program("a = Relu(x) y = Neg(a)"), program("a = Abs(x) y = Neg(a)")
    changed = [line for line in diff(before, after).splitlines()[2:] if line[0] in "+-"]
    assert changed == ["-%a: f32[batch,length,4] = relu(%x)", "+%a: f32[batch,length,4] = abs(%x)"]
    assert diff(before, before) == ""
