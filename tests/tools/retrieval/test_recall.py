"""The recall that an index says it has is what questions find."""

import lettered
import numpy as np
import pytest
from graphwright import Index
from graphwright.tools.retrieval import asking as questions
from graphwright.tools.retrieval import recall as measuring
from graphwright.tools.retrieval.graph import Graph, usearch
from graphwright.tools.retrieval.record import KINDS

ROUNDING = 1e-6  # of cosines of vectors that are kept in float32


@pytest.mark.parametrize("kind", KINDS[1:])
def test_other_kinds_find_as_much_as_they_say(indexes, texts, weights, kind):
    index, exact = indexes[kind], indexes["float32"]
    said = index.record.recall
    assert said["metric"] == "recall@10"
    assert said["value"] >= said["goal"] == measuring.GOALS[kind]
    asking = questions.sample(len(texts))
    vectors = lettered.unit(lettered.vectors(texts, weights))[asking]
    shares = []
    looked = 10 * index.record.effort + 1  # as a question that wants 10, and the row itself
    for row, wanted, found in zip(
        asking, exact.search(vectors, 11)[0], index.search(vectors, looked, 1)[0], strict=True
    ):
        shares.append(len(set(wanted[wanted != row][:10]) & set(found[found != row][:10])) / 10)
    beside = kind == "hnsw"  # where the row itself is in no graph, which gives one more
    assert np.mean(shares) == pytest.approx(said["value"], abs=0.005 if beside else 1e-12)


def test_rows_that_ask_are_not_in_the_graph(bundle, texts, tmp_path):
    """A question is none of the rows, and one that is finds more: its links are its neighbours."""
    index = Index.build(bundle, texts, tmp_path / "index", "hnsw")
    first = questions.held(index.record)
    assert len(first) == min(len(texts), questions.QUERIES)
    index.append(bundle, ["a b c", "k l"])
    record = index.record
    assert questions.held(record).tolist() == first.tolist()
    assert record.recall["queries"] == len(first)
    graph = usearch().Index.restore(str(index.directory / record.graph))
    inside = np.setdiff1d(np.arange(record.rows), first)
    assert sorted(np.asarray(graph.keys).tolist()) == inside.tolist()
    for row in (int(first[0]), int(inside[0]), record.rows - 1):
        assert index.ask(bundle, [index.text(row)], 1)[0][0].score == pytest.approx(1, abs=ROUNDING)


def test_a_goal_is_reached_where_chance_is_not_what_reached_it(bundle, texts, tmp_path):
    index = Index.build(bundle, texts, tmp_path / "first", "binary", recall=0.1)
    said = index.record.recall
    assert 0 < said["error"] < 0.02
    edge = said["value"] - said["error"]  # reached by the mean, and by one error less
    above = Index.build(bundle, texts, tmp_path / "second", "binary", recall=edge).record
    assert above.effort > index.record.effort
    low = said["value"] - 1.65 * said["error"]
    assert (
        Index.build(bundle, texts, tmp_path / "third", "binary", recall=low).record.effort
        == index.record.effort
    )


def test_the_least_effort_that_reaches_the_goal_is_taken(bundle, texts, tmp_path):
    low = Index.build(bundle, texts, tmp_path / "low", "binary", recall=0.1).record
    high = Index.build(bundle, texts, tmp_path / "high", "binary", recall=1.0).record
    assert low.effort < high.effort
    values = list(high.recall["by_effort"].values())
    assert values == sorted(values)
    assert low.recall["value"] == high.recall["by_effort"][str(low.effort)] >= 0.1


def test_rows_that_no_way_in_the_graph_leads_to_are_found(indexes, texts, weights, monkeypatch):
    queries = lettered.vectors(texts[:2], weights)
    expected = indexes["float32"].search(queries, 4)
    nearest = Graph.nearest
    monkeypatch.setattr(Graph, "nearest", lambda *given: [rows[:3] for rows in nearest(*given)])
    found = indexes["hnsw"].search(queries, 4)
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]
