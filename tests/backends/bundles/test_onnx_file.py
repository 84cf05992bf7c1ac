import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphwright.backends.bundles.onnx_file import WeightFile, write_external, write_inline
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper


def model_of(tensors):
    """A model that does nothing but carry tensors."""
    values = [ir.Value(name=name, const_value=tensor) for name, tensor in tensors.items()]
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.node("Identity", [x])
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", x.type, x.shape
    graph = ir.Graph(
        [x], [node.outputs[0]], nodes=[node], initializers=values, opset_imports={"": 18}, name="carrier"
    )
    return ir.Model(graph, ir_version=9)


def read(path):
    proto = onnx.load(path)
    onnx.checker.check_model(str(path))
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


ARRAYS = {
    "large": np.arange(3000, dtype=np.float32).reshape(30, 100),
    "same": np.arange(3000, dtype=np.float32).reshape(30, 100),
    "scalar": np.float32(3.5) * np.ones(()),
    "empty": np.zeros((0, 4), np.float32),
    "bytes": np.arange(5000, dtype=np.uint8),
}


def tensors():
    made = {name: ir.tensor(np.asarray(array), name=name) for name, array in ARRAYS.items()}
    made["lazy"] = ir.LazyTensor(
        lambda: ir.tensor(ARRAYS["large"] * 2), ir.DataType.FLOAT, ir.Shape([30, 100]), name="lazy"
    )
    made["text"] = ir.StringTensor([b"a", b"bc"], shape=ir.Shape([2]), name="text")
    return made


def test_one_file_holds_every_kind_of_tensor(tmp_path):
    write_inline(model_of(tensors()), tmp_path / "m.onnx")
    found = read(tmp_path / "m.onnx")
    for name, array in {**ARRAYS, "lazy": ARRAYS["large"] * 2}.items():
        np.testing.assert_array_equal(found[name], array)
    assert list(found["text"]) == ["a", "bc"]


def test_external_weights_are_read_back_and_equal_ones_stored_once(tmp_path):
    with WeightFile(tmp_path / "w.data") as weights:
        write_external(model_of(tensors()), tmp_path / "a.onnx", weights)
        size = (tmp_path / "w.data").stat().st_size
        write_external(model_of(tensors()), tmp_path / "b.onnx", weights)
    assert (tmp_path / "w.data").stat().st_size == size < 2 * 12000 + 5000 + 3 * 4096
    for name in ("a.onnx", "b.onnx"):
        found = read(tmp_path / name)
        np.testing.assert_array_equal(found["large"], ARRAYS["large"])
        np.testing.assert_array_equal(found["lazy"], ARRAYS["large"] * 2)
        np.testing.assert_array_equal(found["bytes"], ARRAYS["bytes"])


def test_the_callers_model_is_left_alone(tmp_path):
    model = model_of(tensors())
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    with WeightFile(tmp_path / "w.data") as weights:
        write_external(model, tmp_path / "a.onnx", weights)
    write_inline(model, tmp_path / "b.onnx")
    assert {name: value.const_value for name, value in model.graph.initializers.items()} == before


def test_a_lazy_tensor_is_let_go(tmp_path):
    alive = []

    def make():
        alive.append(1)
        return ir.tensor(np.ones((100, 100), np.float32))

    lazy = ir.LazyTensor(make, ir.DataType.FLOAT, ir.Shape([100, 100]), name="w")
    with WeightFile(tmp_path / "w.data") as weights:
        first = weights.add(lazy)
        evaluated = len(alive)
        assert weights.add(lazy) == first
    assert len(alive) == evaluated
    assert lazy._tensor is None


@given(st.lists(st.integers(0, 3000), max_size=6), st.integers(0, 2**31))
def test_the_wire_format_is_what_protobuf_reads(tmp_path_factory, sizes, seed):
    path = tmp_path_factory.mktemp("wire") / "m.onnx"
    rng = np.random.default_rng(seed)
    arrays = {f"w{i}": rng.standard_normal(size).astype(np.float32) for i, size in enumerate(sizes)}
    write_inline(model_of({name: ir.tensor(array, name=name) for name, array in arrays.items()}), path)
    found = read(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("dtype", [ir.DataType.INT4, ir.DataType.BFLOAT16])
def test_types_that_numpy_lacks_survive(tmp_path, dtype):
    raw = np.arange(3000, dtype=np.float32) % 7
    tensor = ir.tensor(raw.astype(dtype.numpy()), dtype=dtype, name="w")
    write_inline(model_of({"w": tensor}), tmp_path / "m.onnx")
    with WeightFile(tmp_path / "w.data") as weights:
        write_external(model_of({"w": tensor}), tmp_path / "e.onnx", weights)
    for name in ("m.onnx", "e.onnx"):
        np.testing.assert_array_equal(
            ir.load(tmp_path / name).graph.initializers["w"].const_value.numpy().astype(np.float32), raw
        )
