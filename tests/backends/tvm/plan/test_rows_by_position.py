"""Rows that lie (length, batch), where there are as many of one as of the other."""

import numpy as np
import torch
import zoo
from graphwright.backends.target import detect
from graphwright.backends.tvm.backend import Tvm
from graphwright.passes.manager.contract import Context
from graphwright.tools.build.presets import chain


def test_xlnet_is_right_where_batch_and_length_are_equal():
    program, tensors = zoo.fx_program("xlnet", "eager"), zoo.SCORES["xlnet"].inputs(4, 4, seed=3)
    context = Context(target=detect())
    lowered = chain("exact", program, "tvm")[0].run(program, context).program
    artifact = Tvm().build(lowered, buckets=[{"batch": 4, "length": 4}])
    with torch.no_grad():
        (wanted,) = program.graph(*(tensors[spec.name] for spec in program.inputs))[:1]
    found = artifact.run({name: tensor.numpy() for name, tensor in tensors.items()})
    np.testing.assert_allclose(found[program.outputs[0]], wanted.numpy(), atol=1e-5)
