"""Models whose main part stands in bodies: decoders merged from two exports, and loops."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, VOCABULARY = 32, 2, 50
SIZE = WIDTH // HEADS
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


class Nodes:
    """Nodes of one graph; every call gives the name of its result."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix, self.made = prefix, []

    def __call__(self, op: str, *inputs: str, outputs: int = 1, **attrs):
        names = [f"{self.prefix}{op.lower()}_{len(self.made)}_{i}" for i in range(outputs)]
        self.made.append(helper.make_node(op, list(inputs), names, **attrs))
        return names[0] if outputs == 1 else names

    def named(self, value: str, name: str) -> None:
        self.made.append(helper.make_node("Identity", [value], [name]))

    def ints(self, *numbers: int) -> str:
        return self("Constant", value=numpy_helper.from_array(np.array(numbers, np.int64)))

    def number(self, number: float) -> str:
        return self("Constant", value=numpy_helper.from_array(np.array(number, np.float32)))


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {
        "table": (VOCABULARY, WIDTH), "query": (WIDTH, WIDTH), "key": (WIDTH, WIDTH), "value": (WIDTH, WIDTH),
        "output": (WIDTH, WIDTH), "up": (WIDTH, 2 * WIDTH), "down": (2 * WIDTH, WIDTH),
        "head": (WIDTH, VOCABULARY), "norm": (WIDTH,), "shift": (WIDTH,),
    }  # fmt: skip
    made = {name: random.standard_normal(shape).astype(np.float32) * 0.15 for name, shape in shapes.items()}
    made["norm"] += 1
    return made


def _heads(n: Nodes, x: str, weight: str) -> str:
    split = n("Reshape", n("MatMul", x, weight), n.ints(0, 0, HEADS, SIZE))
    return n("Transpose", split, perm=[0, 2, 1, 3])


def decoder(n: Nodes, ids: str, mask: str, past: tuple[str, str] | None) -> tuple[str, str, str]:
    """One layer: (logits, keys, values)."""
    x = n("Gather", "table", ids)
    y = n("LayerNormalization", x, "norm", "shift", axis=-1)
    query, key, value = (_heads(n, y, name) for name in ("query", "key", "value"))
    if past is not None:
        key, value = n("Concat", past[0], key, axis=2), n("Concat", past[1], value, axis=2)
    scores = n("MatMul", query, n("Transpose", key, perm=[0, 1, 3, 2]))
    scores = n("Div", scores, n.number(float(np.sqrt(SIZE))))
    hidden = n("Sub", n.number(1.0), n("Cast", n("Unsqueeze", mask, n.ints(1, 2)), to=FLOAT))
    scores = n("Add", scores, n("Mul", hidden, n.number(-1e9)))
    total = n("Squeeze", n("Shape", key, start=2, end=3), n.ints(0))
    new = n("Squeeze", n("Shape", ids, start=1, end=2), n.ints(0))
    zero, one = n("Squeeze", n.ints(0), n.ints(0)), n("Squeeze", n.ints(1), n.ints(0))
    keys = n("Range", zero, total, one)
    queries = n("Range", n("Sub", total, new), total, one)
    seen = n("LessOrEqual", keys, n("Unsqueeze", queries, n.ints(1)))
    scores = n("Where", seen, scores, n.number(-1e9))
    context = n("MatMul", n("Softmax", scores, axis=-1), value)
    context = n("Reshape", n("Transpose", context, perm=[0, 2, 1, 3]), n.ints(0, 0, WIDTH))
    x = n("Add", x, n("MatMul", context, "output"))
    y = n("LayerNormalization", x, "norm", "shift", axis=-1)
    x = n("Add", x, n("MatMul", n("Relu", n("MatMul", y, "up")), "down"))
    return n("MatMul", x, "head"), key, value


def merged(seed: int = 0, flag: str = "use_cache_branch") -> onnx.ModelProto:
    """A decoder in Optimum's form: one branch of an If reads the cache, the other doesn't; weights of the
    main graph serve both."""
    branches = {}
    results = ("logits", "present.0.key", "present.0.value")
    for kind in ("then", "else"):
        n = Nodes(f"{kind}_")
        past = ("past.0.key", "past.0.value") if kind == "then" else None
        made = decoder(n, "input_ids", "attention_mask", past)
        for value, name in zip(made, results, strict=True):
            n.named(value, f"{name}_{kind}")
        outputs = [helper.make_tensor_value_info(f"{name}_{kind}", FLOAT, None) for name in results]
        branches[f"{kind}_branch"] = helper.make_graph(n.made, kind, [], outputs)
    n = Nodes()
    chosen = n("Squeeze", flag, n.ints(0))
    n.made.append(helper.make_node("If", [chosen], list(results), name="optimum::if", **branches))
    cache = ["batch", HEADS, "past_sequence_length", SIZE]
    grown = ["batch", HEADS, "total", SIZE]
    return model(
        n.made,
        [
            helper.make_tensor_value_info("input_ids", INT, ["batch", "sequence_length"]),
            helper.make_tensor_value_info("attention_mask", INT, ["batch", "total_length"]),
            helper.make_tensor_value_info("past.0.key", FLOAT, cache),
            helper.make_tensor_value_info("past.0.value", FLOAT, cache),
            helper.make_tensor_value_info(flag, BOOL, [1]),
        ],
        [
            helper.make_tensor_value_info("logits", FLOAT, ["batch", "sequence_length", VOCABULARY]),
            *(helper.make_tensor_value_info(name, FLOAT, grown) for name in results[1:]),
        ],
        weights(seed),
    )


def layers(turns: int | str, seed: int = 0) -> onnx.ModelProto:
    """A feed-forward applied again and again in the body of a Loop, and to its last result once more outside.

    turns: how often, or the name of an input that says so.
    """
    n = Nodes("body_")
    y = n("LayerNormalization", "state", "norm", "shift", axis=-1)
    y = n("MatMul", n("Relu", n("MatMul", y, "up")), "down")
    n.named(n("Add", "state", y), "next")
    n.named("going", "goes_on")
    state = ["batch", "length", WIDTH]
    body = helper.make_graph(
        n.made,
        "body",
        [
            helper.make_tensor_value_info("turn", INT, []),
            helper.make_tensor_value_info("going", BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, state),
        ],
        [
            helper.make_tensor_value_info("goes_on", BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, state),
        ],
    )
    n = Nodes()
    x = n("Gather", "table", "input_ids")
    count = turns if isinstance(turns, str) else n("Squeeze", n.ints(turns), n.ints(0))
    n.made.append(helper.make_node("Loop", [count, "", x], ["looped"], name="layers", body=body))
    n.named(n("MatMul", "looped", "head"), "logits")
    inputs = [helper.make_tensor_value_info("input_ids", INT, ["batch", "length"])]
    if isinstance(turns, str):
        inputs.append(helper.make_tensor_value_info(turns, INT, []))
    output = helper.make_tensor_value_info("logits", FLOAT, ["batch", "length", VOCABULARY])
    wanted = ("table", "up", "down", "head", "norm", "shift")
    return model(n.made, inputs, [output], {name: weights(seed)[name] for name in wanted})


def model(nodes, inputs, outputs, constants) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "main", inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made)
    return made
