"""What training rows cover of the evaluation rows, against naive counts and planted gaps."""

import numpy as np
import pytest

from report_fixtures import classifier
from stillhouse.data.coverage import coverage, jensen_shannon
from stillhouse.data.formats import with_id
from stillhouse.report.html import render_html
from tiny import sentences


def rows(texts, label="good") -> list[dict]:
    return [with_id({"where": f"x:{n}", "text": text, "label": label}) for n, text in enumerate(texts)]


def test_the_same_rows_are_covered_wholly_and_others_not_at_all():
    texts = sentences(40)
    same = coverage(rows(texts), [], {"eval": rows(texts)})["eval"]
    assert same["words_known"] == {"1": 1.0, "2": 1.0, "3": 1.0} and same["nearest"]["p05"] > 0.999
    assert same["lengths"]["drift"] == same["labels"]["drift"] == 0.0 and same["missing_words"] == {}
    other = coverage(rows(texts), [], {"eval": rows(["stocks fell sharply today"] * 3, "bad")})["eval"]
    assert other["words_known"] == {"1": 0.0, "2": 0.0, "3": 0.0}
    assert other["nearest"]["mean"] < 0.2 and other["labels"]["drift"] == 1.0
    assert other["missing_words"] == {"fell": 3, "sharply": 3, "stocks": 3, "today": 3}


def test_shares_are_those_of_a_naive_count():
    found = coverage(rows(["a b c d"]), [], {"eval": rows(["a b x", "c d a b"])})["eval"]["words_known"]
    assert found == {"1": pytest.approx(6 / 7, abs=1e-4), "2": pytest.approx(3 / 5, abs=1e-4), "3": 0.0}


def test_a_planted_subject_that_training_lacks_is_shown():
    train, held = sentences(200), sentences(30, seed=9)
    found = coverage(rows(train), [], {"eval": rows([*held, "quarks gluons bind hadrons"])})["eval"]
    assert "quarks gluons bind hadrons" in found["least_covered"]
    assert {"quarks", "gluons", "hadrons"} <= set(found["missing_words"])


def test_what_made_rows_add_is_told_apart():
    old, new = rows(sentences(50)), rows(["quarks bind hadrons"])
    found = coverage(old + new, new, {"eval": rows(["quarks bind hadrons"])})["eval"]
    assert found["words_known"]["3"] == 1.0 and found["without_made"]["words_known"]["3"] == 0.0
    assert found["nearest"]["mean"] > found["without_made"]["nearest"]["mean"]


def test_divergence_is_zero_for_equals_one_for_strangers_and_symmetric():
    draw = np.random.default_rng(0)
    one, other = draw.dirichlet(np.ones(6), 2)
    naive = sum(
        0.5 * (p * np.log2(2 * p / (p + q)) + q * np.log2(2 * q / (p + q)))
        for p, q in zip(one, other, strict=True)
    )
    assert jensen_shannon(one, other) == pytest.approx(naive) == pytest.approx(jensen_shannon(other, one))
    assert jensen_shannon(one, one) == 0.0
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1.0


def test_the_report_shows_it_and_text_of_rows_stays_text():
    found = classifier()
    evil = rows(["<script>alert(1)</script> stocks"])
    found["data"]["coverage"] = coverage(rows(sentences(30)), rows(sentences(3)), {"eval": evil})
    page = render_html(found, "", "stillhouse run x.yaml")
    assert "What the training rows cover of eval" in page and "<script>alert" not in page
    assert "without the rows that were made" in page


def test_one_row_is_enough():
    assert coverage(rows(["one"]), [], {"eval": rows(["one"])})["within_train"] is None


def test_written_rows_are_looked_at_also_behind_a_thousand_others():
    old, new = (
        rows([f"plain words number {n}" for n in range(3000)]),
        rows(["quarks bind hadrons"] * 1500, "new"),
    )
    found = coverage(old + new, new, {"eval": rows(["quarks bind hadrons"], "held")})["eval"]
    assert found["words_known"]["3"] == 1.0 and found["without_made"]["words_known"]["3"] == 0.0
    assert found["rows_looked_at"] == 2000  # as many of each kind


def test_without_what_was_made_as_many_rows_are_looked_at_as_with_it():
    """Else many made rows would leave few of the others to look at, and seem to add what those have."""
    held = rows(["quarks bind hadrons"], "held")
    old = rows([f"plain words number {n}" for n in range(999)]) + rows(["quarks bind hadrons"])
    new = rows([f"made words number {n}" for n in range(9000)])
    found = coverage(old + new, new, {"eval": held})["eval"]
    assert found["without_made"]["words_known"] == found["words_known"] == {"1": 1.0, "2": 1.0, "3": 1.0}


def test_rows_among_themselves_are_not_compared_with_what_was_made_of_them():
    old = rows([f"{text} x{n}" for n, text in enumerate(sentences(40))])
    new = [{**row, "id": f"{row['id']}~1", "text": f"{row['text']} again"} for row in old]
    alone = coverage(old, [], {"eval": old})["within_train"]
    assert coverage(old + new, new, {"eval": old})["within_train"] == alone


def test_histograms_are_those_of_a_naive_count_on_every_side():
    old, new = rows(["a b", "c d"], "good"), rows(["e " * 20], "bad")
    found = coverage(old + new, new, {"eval": rows(["x " * 10, "y"], "bad")})["eval"]
    bins = dict.fromkeys(map(str, (0, 8, 16, 32, 64, 128, 256, 512, 1024)), 0.0)
    assert found["lengths"]["train"] == {**bins, "0": 0.6667, "16": 0.3333}
    assert found["lengths"]["without_made"] == {**bins, "0": 1.0}
    assert found["lengths"]["evaluated"] == {**bins, "0": 0.5, "8": 0.5}
    assert found["labels"]["train"] == {"bad": 0.3333, "good": 0.6667}
    assert found["labels"]["without_made"] == {"bad": 0.0, "good": 1.0}
    assert found["labels"]["evaluated"] == {"bad": 1.0, "good": 0.0}
