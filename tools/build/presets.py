"""What each preset runs: a pipeline as text. A goal that one misses falls back to a safer one."""

from __future__ import annotations

from collections.abc import Sequence

from ...backends.base import Engine
from ...ir.program import Program
from ...passes.manager.contract import Feed
from ...passes.manager.pipeline import Pipeline

_CANONICAL = (
    "fold-constants",
    "eliminate-identities",
    "eliminate-common-subexpressions",
    "eliminate-dead-code",
)
_EXACT = (
    "to-onnx",
    *_CANONICAL,
    "simplify-mask",
    "fuse-layer-norm",
    "fuse-bias-gelu",
    "fuse-rotary",
    "fuse-qkv",
    "fuse-attention",
    "keep-residual-sum",
    "fuse-skip-layer-norm",  # RMSNorm, and what the one before leaves
    "fuse-embedding-norm",
    "remove-padding",
)
# TVM fuses by itself, and finds attention in standard operators.
_TVM = ("to-onnx", *_CANONICAL)
# Int8 products of one activation share its quantization already, and take biases themselves.
_BEFORE_INT8 = tuple(name for name in _EXACT if name not in ("fuse-qkv", "fuse-bias-gelu"))


Chains = dict[Engine, dict[str, tuple[str, ...]]]  # by preset


def _texts(exact: tuple[str, ...], before: tuple[str, ...], int8: str) -> dict[str, tuple[str, ...]]:
    """Each preset's pipeline, then safer ones, over the exact passes of a backend.

    before: those that go before rounding. int8: the pass that rounds to it.
    """
    plain = ",".join(exact)
    fast, balanced, careful = (
        ",".join((*before, str(Pipeline.parse(int8.format(least)))))
        for least in ("min_cosine=0.0", "min_cosine=0.99", "min_cosine=0.999")
    )
    bfloat16 = ",".join((*exact, "compute-bfloat16"))
    return {
        "exact": (plain,),
        "bfloat16": (bfloat16, f"{bfloat16}{{min_cosine=0.9999}}", plain),
        "balanced": (balanced, careful, plain),
        "fast": (fast, balanced, careful, plain),
        "small": (  # 4 bits, embedding tables too
            ",".join((*before, "quantize-weights{method=gptq}")),
            ",".join((*before, "quantize-weights{bits=8,group=128}")),
            ",".join((*before, "store-half")),
            plain,
        ),
    }


def around(backend: Engine, rounds: bool) -> list[str]:
    """The exact passes of a backend from to-onnx on: all of them, or those before a pass that rounds."""
    if backend == "tvm":
        return list(_TVM)
    return list(_BEFORE_INT8 if rounds else _EXACT)


# No preset lets a text's vector depend on the texts beside it. Calibrated scales cost nothing at run time and
# want real texts; a scale per token wants none. TVM's kernels scale each row by itself, not the tensor.
CHAINS: Chains = {
    "onnxruntime": _texts(_EXACT, _BEFORE_INT8, "quantize-static{{{}}}"),
    # Attention first: behind int8 the least change turns codes over, and would count as its loss.
    "tvm": _texts(_TVM, _TVM, "compute-bfloat16{{products=attention}},quantize-dynamic{{{},scale=tensor}}"),
}
WITHOUT_TEXTS: Chains = {
    **CHAINS,
    "onnxruntime": _texts(_EXACT, _BEFORE_INT8, "quantize-dynamic{{{}}}"),
}


# Before to-onnx, where calls gain by it. TVM's kernels read patterns of keys from masks.
_FIRST: dict[Engine, tuple[str, ...]] = {"onnxruntime": ("block-attention",), "tvm": ()}


def begun(
    chain: Sequence[Pipeline],
    program: Program,
    feeds: Sequence[Feed],
    backend: Engine = "onnxruntime",
    timed: bool = True,
) -> list[Pipeline]:
    """A preset's pipelines behind those passes before to-onnx that calls gain by.

    Args:
        feeds: calls that the model is optimised for.
        timed: whether a call may get a graph of its own; all calls have to gain where none may.
    """
    if program.dialect != "fx":
        return list(chain)
    passes = Pipeline.parse(",".join(_FIRST[backend])).passes
    first = [
        pass_
        for pass_ in passes
        if (timed or all(pass_.pays(program, feed) for feed in feeds)) and pass_.worthwhile(program, feeds)
    ]
    return [Pipeline([*first, *each.passes]) for each in chain]


def chain(name: str, program: Program, backend: Engine = "onnxruntime") -> list[Pipeline]:
    """The preset's pipeline for a program and a backend, then safer ones; a model that is ONNX already is not
    lowered."""
    chains = CHAINS if "tokenizer.json" in program.tokenizer else WITHOUT_TEXTS
    whole = [Pipeline.parse(text) for text in chains[backend][name]]
    if program.dialect == "fx":
        return whole
    return [Pipeline(pass_ for pass_ in each.passes if pass_.source != "fx") for each in whole]
