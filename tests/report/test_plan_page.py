"""A plan's page: losses are told as losses, text stays text, and the front holds what nobody beats."""

import pytest

from report_fixtures import plan as found
from report_fixtures import plan_row as row
from stillhouse.report.plan_charts import pareto_points, plan_charts
from stillhouse.report.plan_page import render_plan
from stillhouse.report.plan_verdict import plan_verdict


@pytest.mark.parametrize(
    ("better", "value", "said"),
    [
        (True, 0.04, "chain is better than direct in accuracy by 0.040 [0.030, 0.050] over 3 seeds."),
        (False, -0.04, "chain is worse than direct in accuracy by 0.040 [0.030, 0.050] over 3 seeds."),
        (None, 0.004, "chain and direct cannot be told apart in accuracy: a gain of 0.004"),
    ],
)
def test_the_first_sentence_says_who_won_and_by_how_much(
    better: bool | None, value: float, said: str
) -> None:
    assert said in plan_verdict(found(better, value))[0]


def test_a_metric_that_should_be_low_is_turned_so_that_better_is_a_positive_number() -> None:
    metrics = {"accuracy": {"title": "perplexity", "unit": "", "higher_is_better": False}}
    rows = [row("chain", 8.0, 10, up=False), row("direct", 9.0, 10, up=False)]
    assert (
        "better than direct in perplexity by 0.040 [0.030, 0.050]"
        in plan_verdict(found(True, -0.04, metrics=metrics, runs=rows))[0]
    )


def test_what_holds_on_another_data_set_is_said_apart_and_has_a_column_and_a_picture() -> None:
    results = found(None, 0.004)
    assert "on emails by 0.50 [0.40, 0.60]" in plan_verdict(results)[1]
    page = render_plan(results, "")
    assert "quality on emails" in page
    assert [chart.identity for chart in plan_charts(results)][:2] == ["compared", "compared-emails"]


def test_text_stays_text_and_nothing_is_asked_for_from_elsewhere() -> None:
    page = render_plan(found(True), "name: <script>alert(2)</script>")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert 'src="' not in page and "url(http" not in page


def test_the_front_is_what_nobody_beats_in_both() -> None:
    rows = [
        row("small", 0.7, 5),
        row("good", 0.8, 10),
        row("bad", 0.75, 12),
        row("large", 0.9, 20),
        row("twin", 0.8, 11),
    ]
    front = [name for name, _, _, on in pareto_points(found(True, runs=rows)) if on]
    assert front == ["small", "good", "large"]
