"""Pages in a real browser: no script errors, nothing fetched, every plot drawn, readable on any screen."""

import copy

import pytest
from browser import browser, opened
from graphwright.tools.reports.compared import compared
from graphwright.tools.reports.page import page
from graphwright.tools.reports.reading import Reading

HOSTILE = "</script><script>document.title='gone'</script><img src=x onerror=document.title='gone'>"


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def assert_readable(shown, wrong, width):
    assert wrong == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    for place in shown.query_selector_all(".plot"):
        box = place.query_selector("svg").bounding_box()
        assert 0.5 * place.bounding_box()["width"] < box["width"] <= width
        assert place.query_selector_all("svg .mark-symbol path, svg .mark-rect path, svg .mark-line path")
    sizes = (
        "[...document.querySelectorAll('p, td, th, svg text')].map(each => getComputedStyle(each).fontSize)"
    )
    assert min(float(size.removesuffix("px")) for size in shown.evaluate(sizes)) >= 11


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1600, "dark")])
def test_a_bundle_is_readable(built, chromium, width, scheme):
    with opened(chromium, built[1] / "report.html", width, scheme) as (shown, wrong):
        assert len(shown.query_selector_all(".plot")) >= 3
        assert_readable(shown, wrong, width)
        dark = (
            sum(map(int, shown.evaluate("getComputedStyle(document.body).backgroundColor")[4:-1].split(", ")))
            < 150
        )
        assert dark == (scheme == "dark")


@pytest.mark.parametrize("width", [400, 1600])
def test_a_comparison_is_readable(record, chromium, tmp_path, width):
    other = copy.deepcopy(record)
    other["weight_bytes"][0] //= 2
    other["quality"]["drop"] += 1
    path = written(tmp_path / "c.html", compared([Reading("a", record), Reading("b", other)]))
    with opened(chromium, path, width) as (shown, wrong):
        assert len(shown.query_selector_all(".plot")) == 3
        assert_readable(shown, wrong, width)


def test_a_plot_says_its_numbers_to_the_pointer(built, chromium):
    with opened(chromium, built[1] / "report.html") as (shown, _):
        shown.hover(".plot svg .mark-symbol path")
        assert "ms, median" in shown.wait_for_selector("#vg-tooltip-element.visible").inner_text()


def test_a_hostile_name_runs_nothing(record, chromium, tmp_path):
    hostile = copy.deepcopy(record)
    hostile["config"]["model"] = hostile["quantization"][0]["weight"] = hostile["pipeline"] = HOSTILE
    hostile["verdict"] = hostile["notes"] = [HOSTILE]
    with opened(chromium, written(tmp_path / "h.html", page(hostile))) as (shown, wrong):
        assert wrong == []
        assert shown.title() != "gone"
        assert "<script>document.title" in shown.inner_text("main")


def test_the_graph_is_folded_searched_and_opened(built, chromium):
    with opened(chromium, built[1] / "report.html") as (shown, wrong):
        shown.wait_for_selector("#viewer[data-ready=yes]")
        assert len(shown.query_selector_all("#viewer option")) == 1 + sum(
            each.step.status == "applied" for each in built[0].steps
        )
        folded = shown.query_selector_all("#viewer .block")
        assert {each.get_attribute("data-id") for each in folded} >= {"g:attention 0", "g:feed_forward 1"}
        shown.select_option("#viewer select", label=label_of(shown, "fuse-attention"))
        shown.click("[data-id='g:attention 0']")
        assert shown.query_selector("[data-id='c:attention 0']")
        assert shown.query_selector_all("#viewer .node.removed")
        shown.click("button[data-shown=after]")
        assert not shown.query_selector_all("#viewer .node.removed")
        shown.fill("#viewer input", "attention(")
        assert shown.inner_text(".side h3") == "2 found"
        shown.click(".side button >> nth=0")
        assert "is read by" in shown.inner_text(".side")
        assert shown.inner_text(".side code").startswith("%")
        assert wrong == []


def test_a_page_forbids_itself_to_evaluate_text(built, chromium):
    with opened(chromium, built[1] / "report.html") as (shown, _):
        tried = "try { window.said = Function('return 1')() } catch (fault) { window.said = fault.name }"
        shown.evaluate(f"setTimeout(() => {{ {tried} }})")  # what is evaluated for a driver may do more
        shown.wait_for_function("window.said")
        assert shown.evaluate("window.said") == "EvalError"


def label_of(shown, name):
    labels = [each.inner_text() for each in shown.query_selector_all("#viewer option")]
    return next(label for label in labels if name in label)
