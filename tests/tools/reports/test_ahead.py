"""The page's script is bundled while a run begins, once, and never left running."""

import pytest
from graphwright.tools.reports import ahead
from graphwright.tools.reports.script import kept


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path))
    return tmp_path


def test_a_run_waits_until_the_script_is_there(cache, monkeypatch):
    write = "from graphwright.tools.reports.script import kept as k; k().parent.mkdir(); k().write_text('x')"
    monkeypatch.setattr(ahead, "_BUNDLE", write)
    with ahead.Ahead() as running:
        running.wait()
        assert kept().read_text() == "x"
    with ahead.Ahead() as running:
        assert running._process is None


def test_a_run_that_ends_early_ends_it_too(cache, monkeypatch):
    monkeypatch.setattr(ahead, "_BUNDLE", "import time; time.sleep(60)")
    with ahead.Ahead() as running:
        process = running._process
        assert process.poll() is None
    assert process.poll() is not None


def test_nothing_is_bundled_where_no_page_is_written(cache):
    with ahead.Ahead(wanted=False) as running:
        running.wait()
        assert running._process is None
