"""Names and attributes in an ONNX protobuf, before anything builds on them: text is text, and an operator has
the attributes that ONNX gives it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnx import AttributeProto, NodeProto, TensorProto, ValueInfoProto

from ..errors import CaptureError, short
from ..onnx.opset import ONNX

_FREE = {"doc_string", "metadata_props", "producer_name", "producer_version"}  # nothing reads them
_TYPES = {each.value for each in ir.DataType}
_CASTS = {"to", "dtype"}  # attributes that name a type by its number


def check_texts(model: onnx.ModelProto, path: Path) -> None:
    """Raises CaptureError for a name that isn't UTF-8: protobuf gives its bytes."""
    wrong = next((text for text in _texts(model) if isinstance(text, bytes)), None)
    if wrong is not None:
        raise CaptureError(f"'{path}' is broken: a name in it is not UTF-8 text: {short(wrong)}.")


def _texts(message: Any) -> Iterator[str | bytes]:
    if isinstance(message, TensorProto):  # whose bytes are not copied
        yield message.name
        yield from (text for entry in message.external_data for text in (entry.key, entry.value))
        return
    for field, value in message.ListFields():
        if field.name in _FREE:
            continue
        many = value if not isinstance(value, str | bytes) and hasattr(value, "__len__") else [value]
        if field.type == field.TYPE_STRING:
            yield from many
        elif field.type == field.TYPE_MESSAGE:
            for each in many:
                yield from _texts(each)


def check_values(values: Iterable[ValueInfoProto], path: Path) -> None:
    """Raises CaptureError for a value of a type that ONNX doesn't have."""
    for value in values:
        number = value.type.tensor_type.elem_type
        if value.type.HasField("tensor_type") and number not in _TYPES:
            raise CaptureError(
                f"'{path}' is broken: '{value.name}' is of no type that ONNX knows ({number})."
            )


def check_attributes(nodes: Iterable[NodeProto], version: int | None, path: Path) -> None:
    """Attributes of known types, and those that an operator of ONNX's own has in the opset of the file.

    Args:
        version: of ONNX's own opset; None where it isn't imported.

    Raises:
        CaptureError: names the node and the attribute.
    """
    for node in nodes:
        if not node.output:
            raise CaptureError(f"'{path}' is no valid model: {node.op_type} ({node.name}) has no result.")
        where = f"{node.op_type} ({node.name or node.output[0]})"
        for attribute in node.attribute:
            if attribute.type == AttributeProto.UNDEFINED:
                raise CaptureError(
                    f"'{path}' is no valid model: the attribute '{attribute.name}' of {where} has no type."
                )
        wrong = _misfit(node, _declared(node.op_type, version)) if node.domain in ONNX else ""
        if wrong:
            raise CaptureError(f"'{path}' is no valid model: {where} {wrong}.")


def _misfit(node: NodeProto, declared: Mapping[str, tuple[int, bool]] | None) -> str:
    """What is wrong with a node's attributes; nothing for an operator that isn't declared."""
    if declared is None:
        return ""
    given = [each for each in node.attribute if not each.name.startswith("__")]  # as ONNX's checker has it
    names = [each.name for each in given]
    for each in given:
        if names.count(each.name) > 1:
            return f"has the attribute '{each.name}' twice"
        if each.name not in declared:
            return f"has an attribute '{each.name}', which ONNX doesn't know for it"
        kind = declared[each.name][0]
        if each.ref_attr_name:
            continue  # of the function's caller
        if each.type != kind:
            due, found = (AttributeProto.AttributeType.Name(n) for n in (kind, each.type))
            return f"has an attribute '{each.name}' of type {found} and not {due}"
        if each.name in _CASTS and each.i not in _TYPES - {ir.DataType.UNDEFINED.value}:
            return f"makes a type that ONNX doesn't know ({each.i})"
    lacking = next((name for name, (_, needed) in declared.items() if needed and name not in names), None)
    if lacking is not None:
        return f"lacks its attribute '{lacking}'"
    if node.op_type == "Constant" and len(given) != 1:
        return f"gives {len(given)} values, and a constant is one"
    return ""


@cache
def _declared(op_type: str, version: int | None) -> Mapping[str, tuple[int, bool]] | None:
    """Attribute -> (its type, whether it must be there); None for what isn't in that opset."""
    if version is None:
        return None
    try:
        schema = onnx.defs.get_schema(op_type, version, "")
    except (onnx.defs.SchemaError, TypeError):  # the second for a version that no integer of C's holds
        return None
    declared: Mapping[str, Any] = schema.attributes
    return {name: (each.type.value, each.required) for name, each in declared.items()}
