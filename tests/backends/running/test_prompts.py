"""Prompts are looked for as sentence-transformers looks for them."""

import pytest
from graphwright.backends.running.prompts import prompt_of


@pytest.mark.parametrize(
    ("info", "query", "document"),
    [
        ({}, "", ""),
        ({"prompts": {"query": "q: ", "passage": "p: "}}, "q: ", "p: "),
        ({"prompts": {"query": "q: ", "corpus": "c: ", "document": "d: "}}, "q: ", "d: "),
        ({"prompts": {"query": "q: "}, "prompt": "x: "}, "q: ", "x: "),
        ({"prompts": {"classification": "k: "}}, "", ""),
        ({"prompts": ["q"], "prompt": 5}, "", ""),
    ],
)
def test_a_role_has_its_prompt(info, query, document):
    assert (prompt_of(info, "query"), prompt_of(info, "document")) == (query, document)


def test_they_are_those_that_sentence_transformers_takes(monkeypatch):
    from sentence_transformers import SentenceTransformer

    taken = {}

    class Recorded(SentenceTransformer):
        def __init__(self, prompts):
            self.prompts = prompts

        def encode(self, inputs, prompt_name=None, **options):
            taken[options["task"]] = self.prompts.get(prompt_name, "")

    for prompts in ({"query": "q", "passage": "p"}, {"document": "d", "passage": "p"}, {"corpus": "c"}, {}):
        model = Recorded.__new__(Recorded)
        object.__setattr__(model, "prompts", prompts)
        model.encode_query("a")
        model.encode_document("a")
        assert taken == {role: prompt_of({"prompts": prompts}, role) for role in ("query", "document")}
