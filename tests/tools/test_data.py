"""Data files as people have them: four formats, columns told or guessed, every fault with its line."""

import json

import pytest
from graphwright.ir.errors import DataError
from graphwright.tools import data

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
