"""Pipelines as text: exact round trips for every kind of option, and a sentence for each mistake."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from graphwright.ir.errors import PipelineError
from graphwright.passes.manager import registry
from graphwright.passes.manager.contract import Exact, Pass, Result
from graphwright.passes.manager.pipeline import Pipeline
from hypothesis import given, settings
from hypothesis import strategies as st


@dataclass(frozen=True)
class Every(Pass):
    """One option of every kind."""

    name: ClassVar[str] = "every-kind"
    source: ClassVar = None
    target: ClassVar = None
    effect: ClassVar = Exact()

    count: int = 3
    ratio: float = 0.25
    word: str = "plain"
    on: bool = False
    maybe: int | None = None
    mode: Literal["fast", "small"] = "fast"
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[str, float] = ("a", 1.0)
    pairs: tuple[tuple[str, int], ...] = ()
    either: int | str = 0
    made: tuple[str, ...] = field(default_factory=tuple)

    def run(self, program, context):
        return Result(program, False)


@dataclass(frozen=True)
class Needy(Pass):
    name: ClassVar[str] = "needy"
    source: ClassVar = None
    target: ClassVar = None
    effect: ClassVar = Exact()

    ratio: float

    def __post_init__(self):
        if not 0 <= self.ratio < 1:
            raise ValueError(f"ratio must be in [0, 1), not {self.ratio}")

    def run(self, program, context):
        return Result(program, False)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for pass_type in (Every, Needy):
        monkeypatch.setitem(registry.PASSES, pass_type.name, f"test_pipeline_text:{pass_type.__name__}")
    monkeypatch.setitem(__import__("sys").modules, "test_pipeline_text", __import__("sys").modules[__name__])


numbers = st.floats(allow_nan=False)
passes = st.builds(
    Every,
    count=st.integers(),
    ratio=numbers,
    word=st.text(),
    on=st.booleans(),
    maybe=st.none() | st.integers(),
    mode=st.sampled_from(["fast", "small"]),
    sizes=st.lists(st.integers(), max_size=3).map(tuple),
    pair=st.tuples(st.text(), numbers),
    pairs=st.lists(st.tuples(st.text(), st.integers()), max_size=2).map(tuple),
    either=st.integers() | st.text(),
    made=st.lists(st.text(), max_size=2).map(tuple),
)


@settings(max_examples=200)
@given(st.lists(passes, max_size=3))
def test_round_trip(some):
    pipeline = Pipeline(some)
    assert Pipeline.parse(str(pipeline)) == pipeline
    assert str(Pipeline.parse(str(pipeline))) == str(pipeline)


@pytest.mark.parametrize(
    "word", ["true", "none", "inf", "-inf", "1", "1e5", "", " ", 'a"b', "a,b", "\n", "é", "-a", "a-b"]
)
def test_words_that_look_like_something_else(word):
    assert Pipeline.parse(str(Pipeline([Every(word=word, either=word)]))).passes == (
        Every(word=word, either=word),
    )


def test_only_options_that_differ_are_printed():
    assert str(Pipeline([Every()])) == "every-kind"
    assert str(Pipeline([Every(ratio=0.5, sizes=(7,))])) == "every-kind{ratio=0.5,sizes=(7,)}"
    assert str(Pipeline([])) == ""


def test_spaces_and_a_one_tuple_without_comma():
    pipeline = Pipeline.parse(' every-kind { sizes = ( 7 ) , word = "x y" } , needy{ratio=0} ')
    assert pipeline.passes == (Every(sizes=(7,), word="x y"), Needy(0.0))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("every-kid", ["no pass 'every-kid'", "did you mean 'every-kind'"]),
        ("every-kind{rato=1}", ["no option 'rato'", "did you mean 'ratio'"]),
        ("every-kind{ratio=half}", ["'ratio' of 'every-kind' must be a number, not half"]),
        ("every-kind{count=1.5}", ["must be an integer, not 1.5"]),
        ("every-kind{count=true}", ["must be an integer, not true"]),
        ("every-kind{on=1}", ["must be true or false, not 1"]),
        ("every-kind{word=3}", ["must be a string, not 3"]),
        ("every-kind{maybe=x}", ["must be an integer or none, not x"]),
        ("every-kind{mode=large}", ["one of fast, small, not large"]),
        ("every-kind{sizes=(1,a)}", ["a tuple (an integer, ...), not (1,a)"]),
        ("every-kind{pair=(a,)}", ["a tuple (a string, a number), not (a,)"]),
        ("every-kind{count=1,count=2}", ["'count'", "twice"]),
        ("needy", ["needs its option 'ratio' (a number)"]),
        ("needy{ratio=2}", ["refuses its options", "ratio must be in [0, 1), not 2.0"]),
        ("every-kind{count=}", ["should have a value at '}'"]),
        ("every-kind{count=1", ["should have ','", "at its end"]),
        ("every-kind needy", ["should have ',' between passes at 'needy'"]),
        ("every-kind,", ["should have a pass name at its end"]),
        ("every-kind,;", ["at ';'"]),
        ('every-kind{word="\\x"}', ["JSON"]),
        ('every-kind{word="x}', ["at '\"x}'"]),
    ],
)
def test_mistakes(text, words):
    with pytest.raises(PipelineError) as caught:
        Pipeline.parse(text)
    for word in words:
        assert word in str(caught.value)


def test_a_pattern_of_two_numbers_is_a_word_and_more_is_none():
    pipeline = Pipeline.parse("prune-weights{pattern=2:4}")
    assert pipeline.passes[0].pattern == "2:4"
    assert str(pipeline) == "prune-weights{pattern=2:4}"
    assert Pipeline.parse('prune-weights{pattern="2:4"}').passes == pipeline.passes
    with pytest.raises(PipelineError, match="2:4:8"):
        Pipeline.parse("prune-weights{pattern=2:4:8}")


def test_pipelines_that_the_readme_shows_are_pipelines():
    shown = re.findall(r'--pipeline "([^"]+)"', (Path(__file__).parents[3] / "README.md").read_text())
    assert len(shown) > 3
    for text in shown:
        pipeline = Pipeline.parse(text)
        assert Pipeline.parse(str(pipeline)) == pipeline
