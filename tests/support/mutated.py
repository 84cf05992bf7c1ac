"""Files that nobody meant to write: what people bring, changed at random in one or a few places.

Everything follows from a random.Random, so a case that failed comes back by its seed.
"""

import copy
import json

import onnx
from onnx import TensorProto, helper

STRANGE = [
    None, True, -1, 0, 1, 2, 7, 2**31, 2**63, 10**9, -(2**63), 1.7, 1e308, float("nan"), float("inf"), "",
    "x", "\0", "../x", "é" * 3, "x" * 5000, [], {}, [[]], {"a": 1}, [1, "a"], [None], "1", "auto", 1_000_000,
]  # fmt: skip


def places(value, path=()):
    """Every path into a JSON value."""
    yield path
    if len(path) == 12:
        return
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 20)):
            yield from places(value[index], (*path, index))


def strange(rng):
    if rng.random() < 0.05:
        deep = []
        for _ in range(3000):
            deep = [deep]
        return deep
    return rng.choice(STRANGE)


def changed_json(value, rng):
    """A copy of a JSON value with one to three places changed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        paths = [path for path in places(value) if path]
        if not paths:
            return strange(rng)
        *way, last = rng.choice(paths)
        inside = value
        for step in way:
            inside = inside[step]
        what = rng.randrange(5)
        if what == 0:
            del inside[last]
        elif what == 1 and isinstance(inside, dict):
            inside[rng.choice(("x", "", last + "s", last.upper()))] = inside.pop(last)
        elif what == 2:
            other = rng.choice(paths)
            found = value
            try:
                for step in other:
                    found = found[step]
                inside[last] = copy.deepcopy(found)
            except (KeyError, IndexError, TypeError, RecursionError):
                inside[last] = strange(rng)
        else:
            inside[last] = strange(rng)
    return value


def dumped(value):
    try:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}"


def changed_bytes(content, rng):
    """Flipped, cut, doubled or replaced bytes."""
    data = bytearray(content)
    what = rng.randrange(8)
    if what == 0:
        return bytes(data[: rng.randrange(len(data) + 1)])
    if what == 1:
        return b""
    if what == 2:
        return b"[" * 100_000
    if what == 3:
        return content.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-8-sig", "utf-32")))
    if what == 4:
        start = rng.randrange(len(data) + 1)
        return bytes(data[:start] + data[start : start + 40] + data[start:])
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def changed_text(value, rng):
    """A JSON file, changed in meaning or in its bytes."""
    if rng.random() < 0.2:
        return changed_bytes(dumped(value), rng)
    return dumped(changed_json(value, rng))


SIZES = (-1, 0, 1, 3, 2**31, 2**40, 2**62)
NAMES = ("", "x", "batch size!", "input_ids", "é", "n\0n", "y" * 3000, "length", "batch")
TYPES = (0, 1, 2, 6, 7, 8, 9, 10, 11, 14, 16, 17, 21, 23, 99)


def changed_onnx(content, rng):
    """A serialized ONNX model with one to three things changed, or its bytes."""
    if rng.random() < 0.25:
        return changed_bytes(content, rng)
    model = onnx.load_from_string(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = rng.choice(_CHANGES)
        try:
            change(model, rng)
        except (ValueError, IndexError, TypeError, KeyError):  # there is nothing left of that kind
            continue
    return model.SerializeToString()


def _node(model, rng):
    return rng.choice(list(model.graph.node))


def _weight(model, rng):
    return rng.choice(list(model.graph.initializer))


def _values(model):
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    return [*names, *(value.name for value in model.graph.input), ""]


def _drop_node(model, rng):
    del model.graph.node[rng.randrange(len(model.graph.node))]


def _double_node(model, rng):
    model.graph.node.append(_node(model, rng))


def _move_node(model, rng):
    node = _node(model, rng)
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    model.graph.node.remove(node)
    model.graph.node.insert(rng.randrange(len(model.graph.node) + 1), copy)


def _rewire(model, rng):
    node = _node(model, rng)
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(_values(model))


def _cycle(model, rng):
    first, *_, last = model.graph.node
    first.input[rng.randrange(len(first.input))] = last.output[0]


def _rename_result(model, rng):
    node = _node(model, rng)
    node.output[0] = rng.choice((*_values(model), *NAMES))


def _other_operator(model, rng):
    node = _node(model, rng)
    node.op_type = rng.choice(("Relu", "NoSuch", "", "Loop", "Softmax", "Concat", "Split", "MatMul", "Gelu"))
    node.domain = rng.choice(("", "", "", "com.microsoft", "ai.onnx.ml", "nowhere"))


def _other_attribute(model, rng):
    node = _node(model, rng)
    value = rng.choice((0, -9, 2**40, 1.5, "x", [1, 2], [1.5], b"\xff", []))
    if not node.attribute or rng.random() < 0.3:
        if value != []:
            node.attribute.append(
                helper.make_attribute(rng.choice(("axis", "to", "keepdims", "no_such")), value)
            )
        return
    attribute = rng.choice(list(node.attribute))
    if rng.random() < 0.3:
        attribute.type = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 14))
    else:
        attribute.i = rng.choice((0, -1, 5, 99, 2**62))


def _dims(model, rng):
    weight = _weight(model, rng)
    if weight.dims and rng.random() < 0.7:
        weight.dims[rng.randrange(len(weight.dims))] = rng.choice(SIZES)
    else:
        weight.dims.append(rng.choice(SIZES))


def _weight_type(model, rng):
    _weight(model, rng).data_type = rng.choice(TYPES)


def _weight_bytes(model, rng):
    weight = _weight(model, rng)
    what = rng.randrange(4)
    if what == 0:
        weight.raw_data = weight.raw_data[: rng.randrange(len(weight.raw_data) + 1)]
    elif what == 1:
        weight.raw_data += b"\0" * 5
    elif what == 2:
        weight.float_data.extend([1.0, 2.0])
    else:
        weight.raw_data = b"\xff" * len(weight.raw_data)


def _external(model, rng):
    weight = _weight(model, rng)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, choices in (
        ("location", ("/etc/passwd", "../x", "absent", ".", "", "model.onnx")),
        ("offset", ("0", "-1", "x", str(2**62))),
        ("length", ("16", "-1", "0", str(2**62))),
    ):
        if rng.random() < 0.8:
            weight.external_data.add(key=key, value=rng.choice(choices))


def _opset(model, rng):
    if rng.random() < 0.3:
        del model.opset_import[:]
    else:
        model.opset_import[0].version = rng.choice((-1, 0, 1, 7, 11, 13, 17, 18, 23, 99, 2**40))
        model.opset_import[0].domain = rng.choice(("", "", "ai.onnx", "com.microsoft", "x"))


def _ir_version(model, rng):
    model.ir_version = rng.choice((0, -1, 3, 99, 2**40))


def _interface(model, rng):
    values = rng.choice((model.graph.input, model.graph.output))
    what = rng.randrange(8)
    if what == 0:
        del values[:]
        return
    if what == 1:
        values.append(values[0])
        return
    value = rng.choice(list(values))
    kind = value.type.tensor_type
    if what == 2:
        value.ClearField("type")
    elif what == 3:
        kind.elem_type = rng.choice(TYPES)
    elif what == 4:
        kind.ClearField("shape")
    elif what == 5:
        value.name = rng.choice(NAMES)
    else:
        dim = (
            kind.shape.dim[rng.randrange(len(kind.shape.dim))] if rng.random() < 0.8 else kind.shape.dim.add()
        )
        dim.Clear()
        if rng.random() < 0.5:
            dim.dim_value = rng.choice(SIZES)
        else:
            dim.dim_param = rng.choice(NAMES)


def _function(model, rng):
    """Functions that call each other: themselves in the end, or twice as many at every step."""
    names = [f"f{i}" for i in range(rng.choice((1, 3, 40)))]
    for i, name in enumerate(names):
        inner = names[(i + 1) % len(names)] if rng.random() < 0.5 else names[min(i + 1, len(names) - 1)]
        nodes = [
            helper.make_node(inner, ["a"], ["b"], domain="mine"),
            helper.make_node(inner, ["b"], ["c"], domain="mine"),
        ]
        if i == len(names) - 1 and rng.random() < 0.7:
            nodes = [helper.make_node("Relu", ["a"], ["c"])]
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
        model.functions.append(helper.make_function("mine", name, ["a"], ["c"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    last = model.graph.node[-1]
    model.graph.node.append(helper.make_node(names[0], [last.output[0]], ["through"], domain="mine"))


def _loop(model, rng):
    """A loop of a trillion rounds, or without an end."""
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [2**40])
    going = helper.make_tensor("going", TensorProto.BOOL, [], [True])
    body = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["again"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    model.graph.initializer.extend([trips, going])
    node = _node(model, rng)
    into = rng.choice(("trips", ""))
    model.graph.node.append(helper.make_node("Loop", [into, "going", node.output[0]], ["looped"], body=body))


def _sparse(model, rng):
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("at", TensorProto.INT64, [1], [rng.choice((0, -1, 2**40))])
    dims = [rng.choice((4, 2**40))]
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, dims))


_CHANGES = [
    _drop_node, _double_node, _move_node, _rewire, _rewire, _cycle, _rename_result, _other_operator,
    _other_attribute, _dims, _dims, _weight_type, _weight_bytes, _external, _opset, _ir_version, _interface,
    _interface, _interface, _function, _loop, _sparse,
]  # fmt: skip


WORDS = (
    "1x8", "8", "mixed:4", "mixed:", "0x1", "-1x2", "99999x64", "1x9999999", "1x8x8", "x", "1 x 8", "",
    "１x８",
    "inf", "nan", "text=a", "label=2", "pair=", "=b", "text==c", "tetx=a", "fold-constants", "to-onnx",
    "fold-constants{limit=3}", "fold-constants{limit=", "prune-layers{keep=(1,2", 'distill{x="\\',
    "prune-layers{keep=99999999999999999999}", "prune-layers{keep=-1}", "quantize-weights{bits=3,group=0}",
    "specialise-shapes{batch=-1,length=0}", "}{", "((((((", "\ud800", "\0", "é", "none", "true", "cse",
    "store-half{}", "to-onnx{to-onnx}", "a" * 4000, "1e400", "0x10", ".", "-", "9" * 5000,
)  # fmt: skip


def option_text(rng):
    """Words of options, joined in ways that options are not."""
    if rng.random() < 0.1:
        return rng.choice(("(", "[", "{", "a{b=(")) * rng.choice((10, 3000))
    words = [rng.choice(WORDS) for _ in range(rng.choice((1, 1, 2, 3)))]
    text = rng.choice((",", ",", ",", ", ", ";", "")).join(words)
    if rng.random() < 0.3 and text:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice("{}(),=\"'x0 -+.é") + text[at + rng.randrange(2) :]
    return text
