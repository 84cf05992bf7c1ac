"""Pipelines as text: `specialise-shapes{batch=1,length=128},to-onnx,fuse-attention`.

    pipeline := pass ("," pass)*
    pass     := name [ "{" option "=" value ("," option "=" value)* "}" ]
    value    := number | true | false | none | word | "JSON string" | "(" [ value ("," value)* [","] ] ")"

A shape such as 1x128 and a pattern such as 2:4 are words. The fields of a pass (a frozen dataclass) are its
options; their annotations say what a value must be.
"""

from __future__ import annotations

import json
import re
import types
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ...ir.errors import PipelineError, did_you_mean
from .contract import Pass
from .registry import resolve

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:inf|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)(?![\w.:\-]))"
    r'|(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<word>[A-Za-z_][\w.\-]*|\d+[x:]\d+(?![\w.:\-]))"
    r"|(?P<mark>[{}(),=]))"
)
_WORD = re.compile(r"(?:[A-Za-z_][\w.\-]*|\d+[x:]\d+)\Z", re.ASCII)
_RESERVED = {"true": True, "false": False, "none": None}


def print_pass(pass_: Pass) -> str:
    """`name{option=value,...}` with the options that differ from their defaults, in field order."""
    options = [f for f in fields(pass_) if not _is_default(pass_, f)]  # type: ignore[arg-type]
    given = [f"{_option(f)}={print_value(getattr(pass_, f.name))}" for f in options]
    return pass_.name + (f"{{{','.join(given)}}}" if given else "")


def print_value(value: Any) -> str:
    """An option's value in the syntax above."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if _WORD.match(value) and value not in _RESERVED | {"inf": None} else json.dumps(value)
    if isinstance(value, tuple):
        return f"({','.join(map(print_value, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def parse(text: str) -> list[Pass]:
    """The passes a pipeline's text names.

    Raises:
        PipelineError: bad syntax, an unknown pass or option, or a value of the wrong type.
    """
    return _Parser(text).pipeline()


def checked(pass_type: type[Pass], options: dict[str, Any]) -> Pass:
    """The pass with these options, each checked against its field's annotation.

    Raises:
        PipelineError: an unknown or missing option, or a value of the wrong type.
    """
    hints = get_type_hints(pass_type)
    known = {_option(f): f for f in fields(pass_type)}  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known) if known else "; it has none"
            raise PipelineError(f"the pass '{pass_type.name}' has no option '{option}'{hint}")
    for option, f in known.items():
        if f.default is MISSING and f.default_factory is MISSING and option not in options:
            raise PipelineError(
                f"the pass '{pass_type.name}' needs its option '{option}' ({_expected(hints[f.name])})"
            )
    values = {}
    for option, value in options.items():
        field = known[option].name
        try:
            values[field] = _fit(value, hints[field])
        except TypeError:
            raise PipelineError(
                f"the option '{option}' of '{pass_type.name}' must be {_expected(hints[field])}, "
                f"not {print_value(value)}"
            ) from None
    try:
        return pass_type(**values)
    except ValueError as error:
        raise PipelineError(f"the pass '{pass_type.name}' refuses its options: {error}") from error


def given(pass_: Pass) -> dict[str, Any]:
    """Every option of a pass with its value."""
    return {_option(f): getattr(pass_, f.name) for f in fields(pass_)}  # type: ignore[arg-type]


def _option(f: Field) -> str:
    """An option's name: `from`, where Python makes a field be called from_."""
    return f.name.removesuffix("_")


def _is_default(pass_: Pass, f: Field) -> bool:
    default = f.default_factory() if f.default_factory is not MISSING else f.default
    return default is not MISSING and getattr(pass_, f.name) == default


def _fit(value: Any, hint: Any) -> Any:
    """The value as the annotation wants it (an int becomes a float where one is due), or TypeError."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        # An exact member goes first, so that 1 stays an int under int | float.
        for member in sorted(args, key=lambda member: member is not type(value)):
            try:
                return _fit(value, member)
            except TypeError:
                continue
        raise TypeError
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
        raise TypeError
    if origin is tuple and isinstance(value, tuple):
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_fit(item, args[0]) for item in value)
        if len(args) != len(value):
            raise TypeError
        return tuple(_fit(item, arg) for item, arg in zip(value, args, strict=True))
    if hint is float and type(value) in (int, float) and value == value:  # NaN would not round-trip
        return float(value)
    if hint in (type(None), None) and value is None:
        return None
    if isinstance(hint, type) and type(value) is hint and hint is not float:
        return value
    raise TypeError


def _expected(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(member) for member in args)
    if origin is Literal:
        return "one of " + ", ".join(map(print_value, args))
    if origin is tuple:
        inner = f"{_expected(args[0])}, ..." if args[1:] == (Ellipsis,) else ", ".join(map(_expected, args))
        return f"a tuple ({inner})"
    named = {int: "an integer", float: "a number", str: "a string", bool: "true or false", type(None): "none"}
    return named.get(hint, str(hint))


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.kind, self.token = "", ""
        self.advance()

    def advance(self) -> str:
        """Step over the current token and return it."""
        passed = self.token
        match = _TOKEN.match(self.text, self.at)
        if match:
            self.at = match.end()
            self.kind = match.lastgroup or ""
            self.token = match[self.kind]
        elif self.text[self.at :].strip():
            self.token = ""
            self.fail("a pass name, an option or a value")
        else:
            self.kind, self.token, self.at = "end", "", len(self.text)
        return passed

    def fail(self, expected: str) -> None:
        rest = self.text[self.at - len(self.token) :].strip()
        where = f"at '{rest[:20]}'" if rest else "at its end"
        raise PipelineError(f"the pipeline '{self.text}' should have {expected} {where}")

    def expect(self, mark: str) -> None:
        if (self.kind, self.token) != ("mark", mark):
            self.fail(f"'{mark}'")
        self.advance()

    def take(self, mark: str) -> bool:
        found = (self.kind, self.token) == ("mark", mark)
        if found:
            self.advance()
        return found

    def word(self, what: str) -> str:
        if self.kind != "word":
            self.fail(what)
        return self.advance()

    def pipeline(self) -> list[Pass]:
        if self.kind == "end":
            return []
        passes = [self.one_pass()]
        while self.take(","):
            passes.append(self.one_pass())
        if self.kind != "end":
            self.fail("',' between passes")
        return passes

    def one_pass(self) -> Pass:
        pass_type = resolve(self.word("a pass name"))
        options: dict[str, Any] = {}
        if self.take("{"):
            while not self.take("}"):
                option = self.word("an option name")
                if option in options:
                    raise PipelineError(f"the option '{option}' of '{pass_type.name}' is given twice")
                self.expect("=")
                options[option] = self.value()
                if (self.kind, self.token) != ("mark", "}"):
                    self.expect(",")
        return checked(pass_type, options)

    def value(self) -> Any:
        if self.kind == "number":
            token = self.advance()
            return int(token) if re.fullmatch(r"[+-]?\d+", token) else float(token)
        if self.kind == "string":
            try:
                return json.loads(self.advance())
            except json.JSONDecodeError:
                self.fail("a string with JSON's escapes before what comes")
        if self.kind == "word":
            word = self.advance()
            return _RESERVED.get(word, word)
        if not self.take("("):
            self.fail("a value")
        items = []
        while not self.take(")"):
            items.append(self.value())
            if (self.kind, self.token) != ("mark", ")"):
                self.expect(",")
        return tuple(items)
