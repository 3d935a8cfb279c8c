"""The evidence on the page: what was planted is named, markup stays text, and nothing is drawn for nothing."""

import html
from typing import Any

import pytest

import report_fixtures
from stillhouse.cli import output
from stillhouse.report.evidence import sections
from stillhouse.report.html import render_html


def planted() -> dict[str, Any]:
    level = {"value": 0.1, "low": 0.0, "high": 0.2, "note": None}
    models = {"teacher": level, "student": level, "hard_only": level}
    word = {"word": "<script>", "rows": 20, "errors": 9, "expected": 2.0, "p_holm": 0.0001}
    gap = {
        "column": "dialect",
        "group": "north",
        "title": "accuracy",
        "rows": 60,
        "models": models,
        "drift": {**level, "value": 0.07, "p": 0.0004},
        "growth": level,
        "inherited": {**level, "value": 0.05, "p": 0.012},
        "alarm": True,
    }
    errors = {
        "teacher_errors": 60,
        "models": {"student": {**level, "value": 0.19}, "hard_only": {**level, "value": 0.03}},
        "excess": {**level, "value": 0.16, "p": 0.002},
        "says": "They are inherited.",
    }
    return report_fixtures.classifier() | {
        "datasets": {kind: {"rows": 90} for kind in ("eval", "emails", "eval_typos")},
        "inheritance": {
            "eval": {**errors, "words": [word]},
            "emails": {"teacher_errors": 0, "models": {}, "excess": None, "says": "None.", "words": []},
            "eval_typos": {**errors, "words": []},
        },
        "groups": {"eval": {"gaps": [gap]}},
        "counterfactual": {"rows": 30, "metric": "flips", "title": "answers that change", "models": models, "drift": level},
        "robustness": {"eval_typos": {"rows": 40, "left_out": 3, "models": models, "extra": level}},
        "disagreement": [{"by": "label", "value": name, "rows": 9, "agreement": level} for name in ("a", "b")],
        "classes": {
            "table": [{"label": "<b>joy</b>", "support": 9, "models": {name: {"precision": level, "recall": level, "f1": level} for name in models}}],
            "confusions": {
                "student": [{"label": "joy", "answered": "fear", "rows": 4, "share": 0.4, "intervals": {"share": {"value": 0.4, "low": 0.1, "high": 0.7}}}],
                "teacher": [{"label": "joy", "answered": "fear", "rows": 0, "share": 0.0, "intervals": {"share": {"value": 0.0, "low": 0.0, "high": 0.0}}}],
            },
        },
        "disagreement_examples": [
            {"before": "the <i>", "teacher": " sea", "student": " hill", "teacher_share": 0.9, "student_share": 0.4, "kl": 2.0}
        ],
        "calibration": {"student": {"temperature": 2.0, "nll": 1.0, "nll_mended": 0.5, "ece": 0.1, "ece_mended": 0.01,
            "intervals": {"temperature": {"value": 2.0, "low": 1.81, "high": None}, "nll": {"value": 1.0, "low": 0.9, "high": 1.1}}}},
        "memorisation": {"canaries": {
            "count": 8, "read": 4.0, "chance": 1.4, "most": 7.0, "says": "Known.",
            "models": {"student": {"mean": 5.0, "p": 0.001, "intervals": {"mean": {"value": 5.0, "low": 4.0, "high": 6.0}}}},
        }},
        "seeds": {"count": 3, "gain": {"mean": 0.0, "deviation": 0.1, "low": -0.1, "high": 0.1}},
        "economics": {
            "teacher_per_million": 3.0, "student_per_million": 1.0, "machine": 1.5, "making": 2.0, "break_even_requests": 1e6,
            "note": None, "paid": {"evaluate.judge.api": 0.5, "data.writer.api": None}, "teacher_priced_by": None,
        },
    }  # fmt: skip


def test_the_numbers_of_every_section_stand_between_their_limits() -> None:
    rows = {part.title: part.rows for part in sections(planted())}
    mended = rows["The temperature that would mend the confidence"][0]
    assert mended[1:] == ["2.00 [1.81, –]", "1.00 [0.90, 1.10]", "0.500", "0.100", "0.0100"]
    assert rows["What is taken for what"] == [["joy → fear", "4: 40 % (10–70 %)", "0"]]
    assert rows["Planted secrets"][0][2] == "5.0 [4.0, 6.0] (p = 0.001)"


def test_repeated_errors_stand_beside_the_controls_on_every_set_of_rows() -> None:
    """The rows that were changed tell of the change, and have a table of their own."""
    (found,) = [part for part in sections(planted()) if part.title.startswith("Errors inherited")]
    assert found.says == ["They are inherited."]
    assert found.rows == [
        ["eval (60 errors)", "0.19 [0.00, 0.20]", "0.03 [0.00, 0.20]", "0.16 [0.00, 0.20] p = 0.002"],
        ["emails (0 errors)", "–", "–", "–"],
    ]


def test_each_gap_has_its_drift_and_its_difference_from_the_control() -> None:
    results = planted()
    levels, (found,) = (
        [part for part in sections(results) if part.title == title]
        for title in ("Gaps between groups", "What became of the teacher's gaps")
    )
    assert found.rows[0][1:3] == ["0.07 [0.00, 0.20] p < 0.001", "0.05 [0.00, 0.20] p = 0.012"]
    assert levels[0].rows[0][0] == found.rows[0][0] == "accuracy, dialect = north (60 rows)"
    results["groups"]["eval"]["gaps"][0]["inherited"] = None
    (found,) = [part for part in sections(results) if part.title == found.title]
    assert found.rows[0][2] == "–", "no control"


def test_gaps_of_further_rows_are_shown_and_called_by_their_set() -> None:
    results = planted()
    (gap,) = results["groups"]["eval"]["gaps"]
    results["groups"]["emails"] = {"gaps": [{**gap, "alarm": False, "group": "south"}]}
    (found,) = [part for part in sections(results) if part.title == "Gaps between groups"]
    assert [row[0] for row in found.rows] == [
        "accuracy, dialect = north (eval, 60 rows)", "accuracy, dialect = south (emails, 60 rows)",
    ]  # fmt: skip
    assert "north on eval" in found.says[0] and "south" not in found.says[0]


def test_every_section_is_on_the_page_and_data_stays_text() -> None:
    page = render_html(planted(), report_fixtures.RECIPE, "stillhouse run x.yaml")
    for words in (
        "They are inherited.",
        "dialect = north",
        "Swapped terms",
        "changes with the seed",
        "1M requests",
        "typos",
        "&lt;b&gt;joy&lt;/b&gt;, F1 (9 rows)",
        "joy → fear",
        "…the &lt;i&gt;",
        "&#39; sea&#39;",
    ):
        assert words in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_what_was_counted_of_changed_texts_is_said_beside_the_numbers() -> None:
    results = planted()
    results["datasets"] = {**results["datasets"], "eval_halves": {"rows": 40}}
    results["counterfactual"] |= {"metric": "moved", "title": "difference that a term makes"}
    found = {section.title.partition(":")[0]: section for section in sections(results)}
    assert "second half" in found["Changed rows"].says[0]
    assert found["Changed rows"].says[1] == (
        "Typos: 3 rows are left out, for they have no partner whose answer fits in whole."
    )
    assert found["Changed rows"].rows[0][0] == "typos (40 rows)"
    assert "without its sign" in found["Swapped terms"].says[0]
    assert found["Swapped terms"].rows[0][0] == "difference that a term makes (30 rows)"
    assert "second half" not in str(sections(planted()))


def test_page_and_terminal_say_what_making_the_student_is_counted_as(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = planted()
    output.result(results | {"stages": {}}, "runs/x")
    page, printed = (
        render_html(results, report_fixtures.RECIPE, "stillhouse run x.yaml"),
        capsys.readouterr().out,
    )
    for said in (
        "The run has paid for itself after 1M requests.",
        "Counted for making it: the machine's time (1.50) and evaluate.judge.api (0.500).",
        "Not counted, for no price is known: data.writer.api.",
    ):
        assert said in printed
        assert said in html.unescape(page)


def test_swapped_rows_that_nothing_stands_beside_say_so_in_the_place_of_numbers() -> None:
    results = planted()
    results["counterfactual"] |= {"rows": 0, "models": {}, "drift": None, "inherited": None}
    (found,) = [section for section in sections(results) if section.title == "Swapped terms"]
    assert found.says == [
        "No row is measured both with its term and with the other one, so there is nothing to compare."
    ]
    assert found.rows == [["answers that change (0 rows)", "–", "–", "–", "–"]]


def test_a_run_without_such_numbers_has_no_such_sections() -> None:
    assert sections(report_fixtures.classifier()) == []
