"""Programs whose mask of tokens is the other way round: 1, or True, for padding."""

import dataclasses

import numpy as np
import onnx_ir as ir
from graphwright.ir.inputs.roles import input_specs
from graphwright.ir.onnx.graph import OnnxView


def turned(program, name="attention_mask"):
    """An ONNX program that takes `name` turned round; what its inputs are is found anew."""
    program = program.clone()
    graph = program.graph.graph
    mask = next(value for value in graph.inputs if value.name == name)
    tensor = ir.tensor(np.array(1, mask.dtype.numpy()), name="turned.one")
    one = ir.Value(name="turned.one", const_value=tensor)
    one.shape, one.dtype = ir.Shape([]), mask.dtype
    graph.register_initializer(one)
    node = ir.node("Sub", [one, mask], name="turned")
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].dtype = "turned", mask.shape, mask.dtype
    for user, index in tuple(mask.uses()):
        if user is not node:
            user.replace_input_with(index, node.outputs[0])
    graph.insert_before(next(iter(graph)), node)
    shapes, dtypes = ({s.name: getattr(s, of) for s in program.inputs} for of in ("shape", "dtype"))
    return dataclasses.replace(program, inputs=input_specs(OnnxView(program.graph), shapes, dtypes))
