"""The bars of lengths and labels: what results say is what is drawn, and text of the data stays text."""

import re
from typing import Any

from report_fixtures import classifier
from stillhouse.data.coverage import coverage
from stillhouse.data.formats import Row, with_id
from stillhouse.report.histograms import MOST_BARS, histograms
from stillhouse.report.html import render_html


def rows(texts: list[str], label: str) -> list[Row]:
    return [with_id({"where": f"x:{n}", "text": text, "label": label}) for n, text in enumerate(texts)]


def told(train: list[Row], made: list[Row], tests: dict[str, list[Row]]) -> dict[str, Any]:
    found = classifier()
    found["data"]["coverage"] = coverage([*train, *made], made, tests)
    return found


def widths(svg: str, colour: str) -> list[float]:
    """Of the bars that have this colour, in points, those of the legend last."""
    paths = re.findall(rf'<path d="([^"]+)"[^>]*style="fill: var\(--{colour},', svg)
    corners = [[float(x) for x in re.findall(r"[ML] ([\d.]+) ", path)] for path in paths]
    return [max(xs) - min(xs) for xs in corners]


def test_bars_are_as_long_as_the_shares() -> None:
    train = rows(["a b", "a b c", "a " * 20], "good") + rows(["d e f"], "bad")
    lengths, labels = histograms(told(train, [], {"eval": rows(["a", "b"], "bad")}))["eval"]
    mine, theirs = widths(labels.svg, "student"), widths(labels.svg, "teacher")
    assert [round(width / theirs[0], 2) for width in mine[:2]] == [0.25, 0.75]
    assert "bad: 25.0 % of training rows, 100.0 % of eval" in labels.description
    assert "0 to 7: 75.0 % of training rows, 100.0 % of eval" in lengths.description
    assert "16 to 31: 25.0 % of training rows, 0.0 % of eval" in lengths.description
    assert "1024" not in lengths.description  # nobody has any so long


def test_without_what_was_made_there_are_bars_of_their_own() -> None:
    found = told(rows(["a b"], "good"), rows(["d e"], "bad"), {"eval": rows(["a"], "bad")})
    _, labels = histograms(found)["eval"]
    said = "bad: 50.0 % of training rows, 0.0 % of those not made, 100.0 % of eval"
    assert said in labels.description
    muted, all_rows = widths(labels.svg, "muted"), widths(labels.svg, "student")
    assert muted[0] == 0.0
    assert round(muted[1] / all_rows[1], 2) == 2.0


def test_a_set_without_labels_has_lengths_alone() -> None:
    bare: Row = {"id": "1", "where": "x:1", "text": "some words"}
    drawn = histograms(told(rows(["a"], "x"), [], {"inputs": [bare]}))
    assert [chart.title for chart in drawn["inputs"]] == ["Lengths, in words"]


def test_of_many_labels_those_that_differ_most_are_drawn_and_the_rest_is_told() -> None:
    train = [row for n in range(100) for row in rows([f"a {n}"], f"label {n:03}")]
    test = [row for n in range(99) for row in rows([f"a {n}"], f"label {n:03}")]
    _, labels = histograms(told(train, [], {"eval": test}))["eval"]
    assert f"{100 - MOST_BARS} labels whose shares differ less are not shown" in labels.description
    assert "label 099" in labels.description


def test_the_page_holds_them_and_labels_stay_text() -> None:
    evil = "<script>alert(1)</script>"
    page = render_html(told(rows(["a"], evil), [], {"eval": rows(["a"], evil)}), "", "stillhouse run x.yaml")
    assert "<script>alert" not in page
    assert 'id="labels-eval-' in page
    assert "<h3>Lengths, in words</h3>" in page


def test_a_run_that_compared_nothing_draws_nothing() -> None:
    assert histograms({"data": {}}) == {}
