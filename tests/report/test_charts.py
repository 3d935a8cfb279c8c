"""Charts have words, their own ids and no colour that dark mode cannot change."""

import re
from typing import Any, get_args
from xml.etree import ElementTree

import pytest

from report_fixtures import classifier, curves, language_model, ten_thousand_rows
from stillhouse.recipe import Term
from stillhouse.report.charts import gain_forest, quality_and_size, quality_and_speed, reliability
from stillhouse.report.forest import pictures
from stillhouse.report.numbers import duration
from stillhouse.report.svg import Chart
from stillhouse.report.timeline import TERMS, loss_curves, stage_times


def _all(results: dict[str, Any]) -> list[Chart]:
    made = [quality_and_size(results), quality_and_speed(results), gain_forest(results), reliability(results)]
    return [chart for chart in [*made, loss_curves(curves()), stage_times(results)] if chart]


@pytest.fixture(scope="module")
def charts() -> list[Chart]:
    drawn = [chart for chart in [reliability(classifier())] if chart]
    return _all(language_model()) + drawn + list(pictures(ten_thousand_rows()).values())


def test_every_kind_of_chart_is_drawn(charts):
    assert {chart.identity for chart in charts} == {
        "quality-size",
        "quality-speed",
        "gain",
        "loss",
        "stages",
        "reliability",
        "gaps",
        "apart",
        "classes",
    }


def test_every_chart_is_well_formed_and_has_a_text_alternative(charts):
    for chart in charts:
        root = ElementTree.fromstring(chart.svg)
        assert root.get("role") == "img"
        assert root.get("aria-label") == f"{chart.title}. {chart.description}"
        assert root.findtext("title") == chart.title and root.findtext("desc") == chart.description


def test_charts_in_one_page_share_no_id_and_every_reference_resolves(charts):
    ids = [found for chart in charts for found in re.findall(r'\bid="([^"]+)"', chart.svg)]
    assert len(ids) == len(set(ids))
    wanted = {found for chart in charts for found in re.findall(r'(?:href="|url\()#([^")]+)', chart.svg)}
    assert wanted and wanted <= set(ids)


def test_no_colour_is_fixed_so_that_dark_mode_reaches_all_of_it(charts):
    for chart in charts:
        bare = re.sub(r"var\(--[a-z-]+, #[0-9a-f]{6}\)", "", chart.svg)
        assert not re.findall(r"#[0-9a-f]{6}\b", bare), chart.identity
        assert all("fill:" in tag for tag in re.findall(r"<text[^>]*>", chart.svg)), chart.identity


def test_what_passed_outside_of_the_stages_is_drawn_below_them():
    results = language_model()
    for each in results["stages"].values():
        each["seconds_before"] = 1.5
    last = stage_times(results).description.rpartition("; ")[2]
    assert last.startswith(f"outside stages: {duration(1.5 * len(results['stages']))}, predicted –")


def test_the_same_numbers_give_the_same_bytes(charts):
    again = [quality_and_size(language_model()), stage_times(language_model())]
    assert {chart.svg for chart in again} <= {chart.svg for chart in charts}


def test_drawing_leaves_the_users_own_matplotlib_settings_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    stage_times(language_model())
    assert dict(matplotlib.rcParams) == before


def test_right_is_better_in_the_forest_whichever_way_the_metric_points():
    words = gain_forest(language_model()).description.split("; ")
    for word in words:
        value = float(re.search(r": (−?[\d.]+)", word).group(1).replace("−", "-"))
        assert "no clear difference" in word or ("better" in word) == (value > 0)


def test_a_student_before_training_that_is_far_off_is_named_not_drawn():
    chart = quality_and_size(language_model())
    assert "Off the scale: student before, 2.41" in chart.description
    assert ">student before<" not in chart.svg


def test_dollar_signs_and_angle_brackets_in_names_are_drawn_as_they_are():
    results = language_model()
    results["metrics"]["bits_per_byte"]["title"] = "<cost $x$ & more>"
    chart = quality_and_size(results)
    assert "&lt;cost $x$ &amp; more&gt;" in chart.svg
    ElementTree.fromstring(chart.svg)


def test_a_gap_that_came_from_the_teacher_is_drawn_first_and_says_so():
    drawn = pictures(ten_thousand_rows())["gaps"]
    assert drawn.description.startswith("west (inherited): teacher 0.04 [0.02, 0.06], student")


def test_charts_without_numbers_are_left_out():
    assert pictures(language_model()) == {}
    results = language_model() | {"gains": {}, "stages": {}, "reliability": None}
    assert gain_forest(results) is None and stage_times(results) is None and reliability(results) is None
    assert loss_curves([]) is None
    assert loss_curves([{"run": "train", "step": 1, "loss": 2.0}]) is None


def test_every_logged_term_of_both_runs_is_drawn_and_so_is_what_early_stopping_saw():
    rows = [
        {"run": "train", "step": step, "loss": 2.0, "grad_norm": 1.0, "learning_rate": 1e-3, "written_share": 0.5,
         "forward_kl_0": 0.9, "forward_kl_1": 0.8, "hidden": 0.7, "hard": 3.0 / step}
        for step in (1, 2)
    ]  # fmt: skip
    rows += [{"run": "control", "step": step, "loss": 2.0, "hard": 4.0 / step} for step in (1, 2)]
    rows += [
        {"run": "train", "step": 2, "validation": 1.25},
        {"run": "control", "step": 2, "validation": 1.5},
    ]
    chart = loss_curves(rows, "bits per byte on validation rows")
    assert chart.description.split("; ") == [
        "student, cross-entropy on hard targets, nats: 3.00 at step 1, 1.50 at step 2",
        "hard targets only, cross-entropy on hard targets, nats: 4.00 at step 1, 2.00 at step 2",
        "student, KL from the teacher, nats (term 1): 0.900 at step 1, 0.900 at step 2",
        "student, KL from the teacher, nats (term 2): 0.800 at step 1, 0.800 at step 2",
        "student, distance of hidden states: 0.700 at step 1, 0.700 at step 2",
        "student, bits per byte on validation rows: 1.25 at step 2, 1.25 at step 2",
        "hard targets only, bits per byte on validation rows: 1.50 at step 2, 1.50 at step 2.",
    ]


def test_runs_that_share_no_panel_are_both_in_the_legend():
    rows = [{"run": "train", "step": 1, "forward_kl": 1.0}, {"run": "control", "step": 1, "hard": 2.0}]
    svg = loss_curves(rows).svg
    assert svg.count(">student<") == svg.count(">hard targets only<") == 1


def test_every_kind_of_term_has_a_title():
    union = get_args(Term)[0]
    assert {one.model_fields["kind"].default for one in get_args(union)} == set(TERMS)


def test_the_confidence_is_called_that_of_what_the_model_gives():
    bins = [{"low": 0.8, "high": 0.9, "count": 9, "confidence": 0.85, "accuracy": 0.8}]
    for results, given in ((classifier(), "class given"), (language_model(), "likeliest token")):
        chart = reliability(results | {"reliability": {"teacher": bins, "student": bins}})
        assert f"confidence in the {given}" in chart.svg
