"""Data files as people have them: four formats, columns told or guessed, every fault with its line."""

import json
import random
import re
import tracemalloc

import pytest
from graphwright.ir.errors import DataError
from graphwright.tools.judge import data, json_rows
from hypothesis import given, settings
from hypothesis import strategies as st

PAIRS = "A plane is taking off.,An air plane, 5.0\n"


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_a_csv_without_header_is_guessed_and_said(tmp_path):
    path = write(tmp_path, "sts.csv", '"A man, sitting",A man,4.5\nA dog\'s bone,A cat,0\nOne,Two,"3"\n')
    found = data.read(path, "embedding")
    assert found.task == "similarity"
    assert [(row.text, row.pair, row.label) for row in found.rows] == [
        ("A man, sitting", "A man", 4.5),
        ("A dog's bone", "A cat", 0.0),
        ("One", "Two", 3.0),
    ]
    assert "no header" in found.said[0]
    assert "taken to be similarity" in found.said[1]
    assert "the text is column 1, the pair is column 2, the label is column 3" in found.said[2]


def test_a_tsv_keeps_its_bare_quotes(tmp_path):
    path = write(tmp_path, "sst.tsv", 'a "quoted film\t1\n"open quote\t0\n')
    found = data.read(path, "sequence-classification")
    assert [(row.text, row.label) for row in found.rows] == [('a "quoted film', "1"), ('"open quote', "0")]
    assert found.task == "classification"


def test_jsonl_columns_go_by_their_usual_names(tmp_path):
    lines = [{"id": 1, "label": 1, "text": "good"}, {"id": 2, "label": 0, "text": "bad"}]
    path = write(tmp_path, "r.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    found = data.read(path, "sequence-classification")
    assert [(row.line, row.text, row.label) for row in found.rows] == [(1, "good", 1), (2, "bad", 0)]


ROWS = [{"text": "good", "label": 1}, {"text": "bad, [so]", "label": 0}, {"label": 2, "text": "\u00fc\n"}]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_an_array_of_objects_is_a_row_each(tmp_path, indent, mark):
    path = write(tmp_path, "r.JSON", mark + json.dumps(ROWS, indent=indent, ensure_ascii=False) + "\n")
    found = data.read(path, "sequence-classification")
    assert found.task == "classification"
    assert [(row.line, row.text, row.label) for row in found.rows] == [
        (1, "good", 1), (2, "bad, [so]", 0), (3, "\u00fc\n", 2)
    ]  # fmt: skip


def test_arrays_of_arrays_and_of_texts_are_columns(tmp_path):
    pairs = write(tmp_path, "p.json", json.dumps([["a cat", "the cat", 4.5], ["a dog", "no dog", 0]]))
    found = data.read(pairs, "embedding")
    assert [(row.text, row.pair, row.label) for row in found.rows] == [
        ("a cat", "the cat", 4.5), ("a dog", "no dog", 0.0)
    ]  # fmt: skip
    named = write(tmp_path, "n.json", json.dumps([["label", "text"], [1, "a cat"]]))
    assert [(row.text, row.label) for row in data.read(named, "sequence-classification").rows] == [
        ("a cat", 1)
    ]
    texts = write(tmp_path, "t.json", json.dumps(["a cat", "a dog"]))
    assert [row.text for row in data.read(texts, "embedding").rows] == ["a cat", "a dog"]


def test_objects_a_line_are_read_from_json_too(tmp_path):
    path = write(tmp_path, "r.json", "\n".join(map(json.dumps, ROWS)))
    assert [row.text for row in data.read(path, "embedding").rows] == ["good", "bad, [so]", "\u00fc\n"]


@given(st.integers(0, 2**32), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_an_array_is_read_alike_wherever_its_pieces_are_cut(tmp_path_factory, seed, chunk):
    """Against json.loads of the whole."""
    rng = random.Random(seed)
    values = [
        "",
        "a \u2028 b",
        "]",
        "\\",
        '"',
        "\U0001f600",
        1,
        -2.5e-3,
        10**20,
        True,
        None,
        [[1], {}],
        {"a": [1]},
    ]
    array = [{"text": rng.choice(values), "other": rng.choice(values)} for _ in range(rng.randrange(6))]
    content = json.dumps(array, indent=rng.choice((None, 1)), ensure_ascii=rng.random() < 0.5)
    path = tmp_path_factory.mktemp("array") / "r.json"
    path.write_text(rng.choice(("", " \n")) + content, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "_CHUNK", chunk)
        assert list(json_rows.elements(path)) == list(enumerate(json.loads(content), 1))


def test_a_long_array_is_read_a_row_at_a_time(tmp_path):
    path = tmp_path / "long.json"
    with path.open("w") as file:
        file.write("[" + ",".join(json.dumps({"text": f"{n} " + "word " * 80}) for n in range(8_000)) + "]")
    tracemalloc.start()
    found = data.read(str(path), "embedding", samples=10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 3 << 20
    assert peak < 1 << 20
    assert len(found.rows) == 10
    assert [row.line for row in found.rows] == sorted(row.line for row in found.rows)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty; it should hold an array of rows"),
        ("[]", "is empty; it should hold an array of rows"),
        ('[{"text": "a"}', "row 1: is the last, and no ] follows"),
        ('[{"text": "a"},', "row 2: not JSON"),
        ('[{"text": "a"},]', "row 2: not JSON"),
        ('[{"text": "a"} {"text": "b"}]', "row 1: is followed by '{' instead of a comma"),
        ('[{"text": "a"}] 1', "goes on after its array has ended"),
        ('[{"text": "a"}, 3]', "row 2: should be a JSON object"),
        ('[{"text": "a"}, ["a"]]', "row 2: is no object, as the first row is"),
        ('[["a", "b"], ["a"]]', "row 2: 1 columns, and the first row has 2"),
        ('[{"text": "a"}, {"text": 3}]', "row 2: 'text' should be text, not 3"),
        ('[{"text": "a"}, {"pair": "b"}]', "row 2: has no 'text'"),
        ("[" * 100_000, "row 1: not JSON (it is nested too deeply)"),
        ('[{"text": "' + "a" * (5 << 20) + '"}]', "row 1: not JSON (longer than 4 million characters)"),
        ('[{"text": "' + "a" * (20 << 20), "row 1: not JSON (longer than 4 million characters)"),
        (b'[{"text": "\xff"}]', "byte 12 is not UTF-8"),
        (b'[{"text": "a"}, "\0"]', "holds a NUL byte"),
        ('{\n  "data": [1]\n}', "row 1: not JSON"),
    ],
)
def test_a_broken_array_is_refused_by_its_row(tmp_path, content, words):
    with pytest.raises(DataError, match=re.escape(words)):
        data.read(write(tmp_path, "r.json", content), "embedding", "fidelity")


def test_plain_text_is_a_text_a_line(tmp_path):
    path = write(tmp_path, "wiki.txt", "\n = Title = \n \nSome words, 3.5 of them\n")
    found = data.read(path, "causal-lm")
    assert found.task == "perplexity"
    assert [(row.line, row.text) for row in found.rows] == [(2, "= Title ="), (4, "Some words, 3.5 of them")]


def test_a_header_of_unusual_names_is_seen_by_the_numbers_below_it(tmp_path):
    path = write(tmp_path, "h.csv", "erste,zweite,wert\nA,B,1\nC,D,2\n")
    found = data.read(path, "embedding", "similarity")
    assert [row.line for row in found.rows] == [2, 3]
    assert "the text is 'erste', the pair is 'zweite', the label is 'wert'" in found.said[-1]


def test_told_columns_are_taken_and_nothing_is_said_of_them(tmp_path):
    path = write(tmp_path, "h.csv", "comment,body,stars\nnice,long text,1\nbad,other text,2\n")
    found = data.read(path, "features", "classification", {"text": "body", "label": "stars"})
    assert [(row.text, row.pair, row.label) for row in found.rows] == [
        ("long text", None, "1"),
        ("other text", None, "2"),
    ]
    assert found.said == ()


def test_a_column_told_by_number_serves_a_file_without_header(tmp_path):
    path = write(tmp_path, "n.tsv", "x1\tfirst\t0\nx2\tsecond\t1\n")
    found = data.read(path, "features", "classification", {"text": "2", "label": 3})
    assert [row.text for row in found.rows] == ["first", "second"]


def test_token_classification_reads_lists_and_spaced_words(tmp_path):
    row = {"tokens": ["EU", "rejects"], "ner_tags": ["B-ORG", "O"]}
    path = write(tmp_path, "ner.jsonl", json.dumps(row))
    assert data.read(path, "token-classification").rows[0].label == ("B-ORG", "O")
    path = write(tmp_path, "ner.tsv", "tokens\ttags\nEU rejects\tB-ORG O\n")
    found = data.read(path, "token-classification")
    assert found.task == "token-classification"
    assert found.rows[0].text == ("EU", "rejects")
    path = write(tmp_path, "bad.tsv", "tokens\ttags\nEU rejects\tO\n")
    with pytest.raises(DataError, match="line 2: 2 words and 1 labels"):
        data.read(path, "token-classification")


def test_a_sample_is_spread_over_the_file_and_the_same_for_a_seed(tmp_path):
    path = write(tmp_path, "s.tsv", "".join(f"text number {i}\t{int(i >= 500)}\n" for i in range(1000)))
    first = data.read(path, "sequence-classification", samples=100, seed=1)
    assert len(first.rows) == 100
    assert first == data.read(path, "sequence-classification", samples=100, seed=1)
    assert first.rows != data.read(path, "sequence-classification", samples=100, seed=2).rows
    assert 30 < sum(row.label == "1" for row in first.rows) < 70
    assert [row.line for row in first.rows] == sorted(row.line for row in first.rows)
    assert "100 of 1000 rows" in first.said[-1]


@pytest.mark.parametrize(
    ("name", "content", "task", "columns", "sentence"),
    [
        ("e.csv", "", None, {}, "is empty"),
        ("e.csv", "text,label\n", None, {}, "has a header and no rows"),
        ("b.txt", "\n \n", None, {}, "is empty"),
        ("b.jsonl", '{"text": " "}\n', None, {}, "holds no text"),
        ("n.csv", "one,1\nt\0wo,2\n", None, {}, "line 2: holds a NUL byte"),
        ("u.csv", b"one,1\ncaf\xe9,2\n", None, {}, "line 2: byte 4 is not UTF-8"),
        ("w.csv", "one,1\ntwo,2,3\n", None, {}, "line 2: 3 columns, and the first row has 2"),
        ("q.csv", "".join(f"a{i},b\n" for i in range(60)) + '"x\n', None, {}, "line 61"),
        ("x.jsonl", '{"text": "a"}\n{oops}\n', None, {}, "line 2: not JSON"),
        ("l.jsonl", "[1]\n", None, {}, "line 1: should be a JSON object"),
        (
            "m.jsonl",
            '{"text": "a", "label": 1}\n{"text": "b"}\n',
            "classification",
            {},
            "line 2: has no 'label'",
        ),
        ("t.jsonl", '{"text": 3, "label": 1}\n', "classification", {"text": "text"}, "should be text, not 3"),
        ("c.csv", "text,label\na,1\n", None, {"label": "lable"}, "no column 'lable'; did you mean 'label'?"),
        ("c.csv", "text,label\na,1\n", None, {"label": "zzz"}, "no column 'zzz'; there are: label, text"),
        ("o.csv", "text,label\na,1\nb,2\n", "similarity", {}, "similarity needs a pair column"),
        (
            "s.csv",
            "a b,c d,1\ne f,g h,high\n",
            "similarity",
            {"label": 3},
            "line 2: column 3 should be a number",
        ),
        ("p.parquet", "PAR1", None, {}, "ends in none of them"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path, name, content, task, columns, sentence):
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        data.read(path, "sequence-classification", task, columns)
    assert sentence in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.csv", "text;pair;label\nA, b;c;0,5\nd;e, f;1,5\n", "separated by semicolons"),
        ("t.csv", "text\tpair\tlabel\nA, b\tc\t0.5\nd\te, f\t1.5\n", "separated by tabs"),
        ("b.csv", "text|pair|label\nA, b|c|0.5\nd|e, f|1.5\n", "separated by bars"),
        ("c.tsv", "text,pair,label\nA b,c,0.5\nd,e f,1.5\n", "separated by commas"),
        ("q.csv", 'text;pair;label\n"A; b";c;0.5\n"d\ne";f;1.5\n', "separated by semicolons"),
        ("d.csv", "A b;c;0,5\nd;e f;1,5\n", "separated by semicolons"),  # commas would split it as evenly
    ],
)
def test_a_separator_that_the_name_does_not_say_is_found_and_said(tmp_path, name, content, words):
    found = data.read(write(tmp_path, name, content), "embedding")
    assert [row.label for row in found.rows] == [0.5, 1.5]
    assert {row.pair for row in found.rows} & {"c", "e", "f"}
    assert f"{name}: its columns are {words}" in found.said


@pytest.mark.parametrize("content", ["text,label\na; b,1\nc; d,0\n", 'text,label\n"a, b; c",1\n"d\n",0\n'])
def test_commas_stay_what_separates_a_csv(tmp_path, content):
    found = data.read(write(tmp_path, "c.csv", content), "sequence-classification")
    assert [row.label for row in found.rows] == ["1", "0"]
    assert not any("separated" in sentence for sentence in found.said)


@pytest.mark.parametrize("missing", ["nan", "", "NULL", "n/a"])
@pytest.mark.parametrize("every", [False, True])
def test_a_label_that_is_missing_is_refused_and_its_column_not_taken_for_another(tmp_path, missing, every):
    if every and not missing:
        return
    numbers = [missing] * 3 if every else ["1", "2", missing]
    rows = "".join(f"some text,other text,{number}\n" for number in numbers)
    path = write(tmp_path, "l.csv", f"erste,zweite,wert\n{rows}")
    with pytest.raises(DataError, match=r"l\.csv, line \d: 'wert' is '.*', which is no label: fill it in"):
        data.read(path, "embedding")
    lines = "\n".join(f'{{"text": "a", "label": {number}}}' for number in (1, "NaN"))
    with pytest.raises(DataError, match="line 2: 'label' is nan, which is no label"):
        data.read(write(tmp_path, "l.jsonl", lines), "sequence-classification")


def test_a_class_may_be_called_none(tmp_path):
    found = data.read(write(tmp_path, "l.csv", "text,label\na,none\nb,some\n"), "sequence-classification")
    assert [row.label for row in found.rows] == ["none", "some"]


def test_labels_that_a_task_does_not_use_are_said(tmp_path):
    found = data.read(write(tmp_path, "l.csv", "text,label\na,1\nb,2\n"), "embedding")
    assert found.task == "fidelity"
    assert "l.csv: the task is taken to be fidelity and its labels are not used" in found.said


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no such data file: .*absent\.csv"):
        data.read(str(tmp_path / "absent.csv"), "embedding")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*d\.csv"):
        data.read(str(tmp_path / "d.csv"), "embedding")


def test_names_in_capitals_and_long_fields_are_read(tmp_path):
    path = tmp_path / "ROWS.CSV"
    long = "a word " * 30_000
    path.write_text(f"text,label\n{long},0\nshort,1\n")
    found = data.read(str(path), "sequence-classification")
    assert [row.text for row in found.rows] == [long, "short"]
