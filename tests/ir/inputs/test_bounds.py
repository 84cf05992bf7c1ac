"""How long inputs may be: by tables that are looked up, sliced or indexed, and by what convolutions need."""

import numpy as np
import onnx
import pytest
import torch
from graphwright import trace
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.ir.sources.onnx_file import from_onnx
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from torch import nn


def saved(path, shape, nodes, kind=TensorProto.INT64, rank=3, **constants):
    """A program of one input, "x"; its output is "y", of `rank` axes."""
    constants |= {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2])}
    constants |= {"nought": np.array(0), "single": np.array(1)}
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    takes = [make_tensor_value_info("x", kind, shape)]
    gives = make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    graph = make_graph(nodes, "g", takes, [gives], held)
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 20)], ir_version=10), path)
    return from_onnx(path)


def runs(program):
    feeds = probes(program, 0)
    for result in execute(program, feeds):
        assert np.isfinite(result["y"]).all()
    return feeds


WORDS = np.ones((97, 8), np.float32)
LENGTH = (make_node("Shape", ["x"], ["shape"]), make_node("Gather", ["shape", "one"], ["length"]))
HIDDEN = (make_node("Gather", ["words", "x"], ["hidden"]),)


@pytest.mark.parametrize(("rows", "first"), [(64, 0), (24, 0), (26, 2)])
def test_the_end_of_a_slice_stays_inside_its_table(tmp_path, rows, first):
    """RoBERTa's positions begin at 2."""
    program = saved(
        tmp_path / "m.onnx",
        ["b", "s"],
        [
            *LENGTH,
            *HIDDEN,
            make_node("Add", ["length", "first"], ["end"]),
            make_node("Slice", ["positions", "first", "end", "one"], ["some"]),
            make_node("Add", ["hidden", "some"], ["y"]),
        ],
        words=WORDS,
        positions=np.ones((1, rows, 8), np.float32),
        first=np.array([first]),
    )
    assert program.symbols["length"] == (1, rows - first)
    assert max(feed["x"].shape[1] for feed in runs(program)) == min(33, rows - first)


def test_a_slice_that_is_cut_with_its_input_bounds_nothing(tmp_path):
    program = saved(
        tmp_path / "m.onnx",
        ["b", "s"],
        [
            *LENGTH,
            *HIDDEN,
            make_node("Min", ["length", "most"], ["end"]),
            make_node("Slice", ["positions", "zero", "end", "one"], ["some"]),
            make_node("Slice", ["hidden", "zero", "end", "one"], ["cut"]),
            make_node("Add", ["cut", "some"], ["y"]),
        ],
        words=WORDS,
        positions=np.ones((1, 24, 8), np.float32),
        most=np.array([24]),
    )
    assert program.symbols["length"][1] > 1000
    runs(program)


def test_convolutions_need_as_many_samples_as_their_kernels_span(tmp_path):
    """wav2vec 2.0's first three: 10 by 5, 3 by 2, 3 by 2 need 10 + 2 * 5 + 2 * 10 samples."""
    program = saved(
        tmp_path / "m.onnx",
        ["b", 1, "samples"],
        [
            make_node("Conv", ["x", "w1"], ["a"], strides=[5]),
            make_node("Conv", ["a", "w2"], ["c"], strides=[2]),
            make_node("Conv", ["c", "w2"], ["y"], strides=[2]),
        ],
        TensorProto.FLOAT,
        w1=np.ones((4, 1, 10), np.float32),
        w2=np.ones((4, 4, 3), np.float32),
    )
    assert program.symbols["samples"][0] == 40
    assert len({feed["x"].shape for feed in runs(program)}) > 4


def test_padded_convolutions_take_one_frame(tmp_path):
    program = saved(
        tmp_path / "m.onnx",
        ["b", 4, "frames"],
        [make_node("Conv", ["x", "w"], ["y"], pads=[1, 1])],
        TensorProto.FLOAT,
        w=np.ones((4, 4, 3), np.float32),
    )
    assert all(low == 1 for low, _ in program.symbols.values())


def test_a_patch_needs_both_sides_of_an_image(tmp_path):
    program = saved(
        tmp_path / "m.onnx",
        ["b", 3, "height", "width"],
        [make_node("Conv", ["x", "w"], ["y"], strides=[7, 5])],
        TensorProto.FLOAT,
        rank=4,
        w=np.ones((4, 3, 7, 5), np.float32),
    )
    assert (program.symbols["height"][0], program.symbols["width"][0]) == (7, 5)
    runs(program)


class Positions(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.words, self.places, self.how = nn.Embedding(97, 8), nn.Embedding(24, 8), how

    def forward(self, ids):
        return self.words(ids) + self.how(self.places.weight, torch.arange(ids.shape[1]))


@pytest.mark.parametrize(
    "how",
    [
        lambda table, places: table[places],  # as Whisper's decoder reads them
        lambda table, places: table.index_select(0, places),
        lambda table, places: table[: places.shape[0]],
    ],
    ids=["indexed", "selected", "sliced"],
)
def test_a_traced_table_bounds_the_length_however_it_is_read(how):
    program = trace(Positions(how).eval(), inputs=[torch.randint(0, 97, (3, 11))])
    assert program.symbols["length"] == (1, 24)
    execute(program, probes(program, 0))
