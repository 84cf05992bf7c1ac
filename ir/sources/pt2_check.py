"""What is in a .pt2 archive, looked at before torch.export.load may act on it.

torch.export.load unpickles custom objects, tensors of unusual layout and whatever older versions wrote, and
evaluates the size expressions of the graph as Python (sympy.sympify). None of that runs here: an archive is
loaded only when it holds plain tensors, expressions of arithmetic, and ATen operators.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import CaptureError

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.\w+(\.\w+)?|_operator\.\w+|torch\.sym_\w+|math\.\w+"
)
_SYMBOL = re.compile(r"[a-z]+\d+")
_FUNCTIONS = frozenset(
    "Symbol Integer Float Rational Pow Mul Add Mod Max Min Abs floor ceiling FloorDiv PythonMod CleanDiv "
    "CeilDiv ModularIndexing Where CeilToInt FloorToInt TruncToInt RoundToInt IntTrueDiv FloatTrueDiv "
    "ToFloat PowByNatural FloatPow Identity Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan LessThan "
    "StrictGreaterThan GreaterThan And Or Not oo int_oo positive integer nonnegative real".split()
)
_SYNTAX = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword,
    ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip


def check(path: Path) -> None:
    """Looks through the archive.

    Raises:
        CaptureError: it is no archive of one exported program, or loading it would unpickle or evaluate
            something.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(names) != len(set(names)):
                raise CaptureError(f"'{path}' has two entries of one name: not an archive that torch wrote.")
            _check_entries(path, archive, names)
    except (zipfile.BadZipFile, EOFError, OSError, UnicodeDecodeError) as error:
        raise CaptureError(f"'{path}' is truncated or no .pt2 archive.") from error


def _check_entries(path: Path, archive: zipfile.ZipFile, names: list[str]) -> None:
    models = [name for name in names if name.partition("/")[2].startswith("models/")]
    if not models:
        raise CaptureError(
            f"'{path}' is truncated, or not of torch.export.save's present format: "
            "save it again with a recent torch."
        )
    if len(models) > 1:
        raise CaptureError(f"'{path}' holds {len(models)} programs: save the one to capture on its own.")
    for name in names:
        inner = name.partition("/")[2]
        if inner.startswith("data/aotinductor"):
            raise CaptureError(f"'{path}' holds compiled code ({inner}): give the exported program alone.")
        if inner.startswith(("data/weights/", "data/constants/")):
            if inner.endswith("_config.json"):
                _check_payloads(path, _json(path, archive, name))
            elif inner.endswith(".pt"):
                raise CaptureError(f"'{path}' holds pickled tensors ({inner}): loading would run a pickle.")
        if inner.startswith("data/sample_inputs/") and archive.getinfo(name).file_size:
            _check_sample(path, archive.read(name))
    for where in _walk(_json(path, archive, models[0])):
        if "expr_str" in where and not _arithmetic(where["expr_str"]):
            raise CaptureError(f"'{path}' has a size that is no arithmetic: {where['expr_str']!r}.")
        if "target" in where and "inputs" in where and not _OPERATOR.fullmatch(str(where["target"])):
            raise CaptureError(f"'{path}' calls {where['target']}, which is none of ATen's operators.")


def _check_payloads(path: Path, config: dict[str, Any]) -> None:
    for name, entry in config.get("config", {}).items():
        if entry.get("use_pickle") or not str(entry.get("path_name")).startswith(("weight_", "tensor_")):
            raise CaptureError(f"'{path}' holds '{name}' as a pickle: loading would run it.")


def _check_sample(path: Path, data: bytes) -> None:
    """torch reads sample inputs with weights_only first, and without it when that fails."""
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # whatever it is, torch would go on to unpickle
        raise CaptureError(f"'{path}' holds pickled objects among its sample inputs: not loaded.") from error


def _json(path: Path, archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    try:
        value = json.loads(archive.read(name))
    except (ValueError, RecursionError) as error:
        raise CaptureError(f"'{path}' is no .pt2 archive: {name} is not JSON.") from error
    if not isinstance(value, dict):
        raise CaptureError(f"'{path}' is no .pt2 archive: {name} is not an object.")
    return value


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _arithmetic(expression: Any) -> bool:
    """Is it built of numbers, symbols and functions of arithmetic alone?"""
    try:
        tree = ast.parse(str(expression), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _SYNTAX):
            return False
        if isinstance(node, ast.Name) and node.id not in _FUNCTIONS and not _SYMBOL.fullmatch(node.id):
            return False
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and not _SYMBOL.fullmatch(node.value)
        ):
            return False
    return True
