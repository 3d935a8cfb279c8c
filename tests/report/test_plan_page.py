"""A plan's page: losses are told as losses, text stays text, and the front holds what nobody beats."""

from html import unescape

import pytest

from report_fixtures import plan as found
from report_fixtures import plan_row as row
from stillhouse.report.plan_charts import pareto_points, plan_charts
from stillhouse.report.plan_page import plan_columns, plan_rows, render_plan
from stillhouse.report.plan_verdict import kept_unknown, plan_verdict


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
    assert ">on emails</th>" in page
    assert [chart.identity for chart in plan_charts(results)][:2] == ["compared", "compared-emails"]


def test_a_run_without_retention_says_why() -> None:
    no_lead = {
        "value": None,
        "low": None,
        "high": None,
        "note": "retention is undefined: the teacher does not lead.",
    }
    kept = {"value": 0.91, "low": 0.89, "high": 0.93, "note": None}
    rows = [
        row("kept", 0.8, 10) | {"retention": kept},
        row("lost", 0.8, 10) | {"retention": no_lead},
        row("too", 0.8, 10) | {"retention": no_lead},
        row("joined", 0.8, 20) | {"runs": []},
    ]
    rows.append(row("seeds", 0.8, 10))
    rows[-1]["quality"] |= {"seeds": 3}
    said = kept_unknown(found(True, runs=rows))
    assert said == [
        "How much of the teacher's accuracy lost and too keep cannot be said: retention is undefined: the teacher does not lead.",
        "How much of the teacher's accuracy joined keeps cannot be said: it is not measured of averaged students.",
        "How much of the teacher's accuracy seeds keeps cannot be said: it is measured of one seed at a time, and stands in the "
        "report of each run.",
    ]
    page = unescape(render_plan(found(True, runs=rows), ""))
    assert all(sentence in page for sentence in said)
    assert kept_unknown(found(True, runs=rows[:1])) == []
    assert "the students keep cannot be said" in kept_unknown(found(True, runs=rows[1:3]))[0]


def test_the_metric_is_named_once_where_all_runs_have_one() -> None:
    assert plan_columns(found(True))[2] == "accuracy"
    assert plan_rows(found(True))[1][2].startswith("0.80")
    mixed = found(True, runs=[row("chain", 0.8, 10), row("other", 2.0, 10) | {"metric": "perplexity"}])
    assert plan_columns(mixed)[2] == "quality"
    assert [line[2].split()[0] for line in plan_rows(mixed)] == ["accuracy", "accuracy", "perplexity"]


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


def test_where_runs_were_measured_on_other_rows_none_is_the_best_and_nothing_is_a_front() -> None:
    """A plan of an older version does not say whether they were, and reads as it did."""
    runs = [row("small", 0.7, 5), row("large", 0.9, 10)]
    said, fronts = {}, {}
    for same in ({}, {"same_rows": True}, {"same_rows": False}):
        results = found(None, 0.0, plan="sweep", comparisons=[], runs=runs, **same)
        said[str(same)] = plan_verdict(results)[0]
        fronts[str(same)] = [chart.identity for chart in plan_charts(results)].count("pareto")
    assert [text.startswith("The best of 2 in accuracy: large") for text in said.values()] == [
        True,
        True,
        False,
    ]
    assert said["{'same_rows': False}"].startswith("None of 2 can be called the best")
    assert list(fronts.values()) == [1, 1, 0]
