"""Exposure and verbatim text: right in the limits, silent by chance, and never sure where the test could not have seen it."""

import math
from itertools import product

import numpy as np
import pytest

from stillhouse.measure.memorised import (
    by_chance,
    chance_facts,
    exposure_facts,
    exposure_in_words,
    exposures,
    fisher,
    least_gap,
    power,
    ranks,
    verbatim_in_words,
)


def test_the_likeliest_of_128_has_7_bits_and_the_unlikeliest_none() -> None:
    nll = np.arange(128.0)[None, :].repeat(2, 0)
    nll[1] = nll[1][::-1]
    assert ranks(nll).tolist() == [1, 128]
    assert exposures(ranks(nll), 128).tolist() == [7.0, 0.0]


def test_a_tie_is_no_memory() -> None:
    assert ranks(np.zeros((1, 16))).tolist() == [16]


def test_who_never_saw_the_secrets_raises_an_alarm_in_five_of_a_hundred_runs() -> None:
    generator = np.random.default_rng(3)
    chance = by_chance(8, 128, 0)
    drawn = exposures(generator.integers(1, 129, (4000, 8)), 128).mean(1)
    alarms = np.mean([(chance >= value).mean() <= 0.05 for value in drawn])
    assert 0.04 < alarms < 0.06
    assert chance.mean() == pytest.approx(np.log2(np.e), abs=0.05), "the mean of −log2 of a uniform draw"


def test_what_would_have_been_seen_is_seen_in_eight_of_ten_runs() -> None:
    chance, facts = by_chance(8, 128, 0), chance_facts(8, 128, 0)
    shifted = by_chance(8, 128, 1) + facts["least_visible"]
    assert (shifted > np.quantile(chance, 0.95)).mean() == pytest.approx(0.8, abs=0.02)


def test_known_secrets_are_found_and_words_depend_on_the_tests_power() -> None:
    generator = np.random.default_rng(0)
    known = generator.normal(size=(8, 128))
    known[:, 0] = -9.0
    student, chance = exposure_facts(known, 0), chance_facts(8, 128, 0)
    assert student["mean"] == 7.0
    assert student["intervals"]["mean"]["note"], "all secrets alike: the interval has no width, and says so"
    assert student["p"] < 0.001
    assert "has memorised" in exposure_in_words(student, chance, 4.0)
    clean = exposure_facts(np.tile(np.arange(128.0), (8, 1))[:, ::-1], 0)
    assert "No evidence" in exposure_in_words(clean, chance, 4.0)
    assert "nothing can be said" in exposure_in_words(clean, chance, 0.5)
    assert "too few" in exposure_in_words(clean, chance_facts(1, 128, 0), 4.0)


def test_fishers_test_is_a_count_of_all_tables() -> None:
    hits, rows, others, other_rows = 3, 4, 1, 5
    total = alike = 0
    for marks in product((0, 1), repeat=rows + other_rows):
        if sum(marks) == hits + others:
            total += 1
            alike += sum(marks[:rows]) >= hits
    assert fisher(hits, rows, others, other_rows) == pytest.approx(alike / total)


def test_few_rows_are_no_evidence_of_absence() -> None:
    assert "too few rows" in verbatim_in_words(0, 4, 0, 4)
    assert "No evidence" in verbatim_in_words(0, 128, 0, 128)
    assert "reproduces training text" in verbatim_in_words(20, 128, 1, 128)
    assert "No evidence" in verbatim_in_words(3, 128, 3, 128), "what is predictable is no memory"


@pytest.mark.parametrize(
    ("rows", "others", "base", "gap"), [(12, 10, 0.1, 0.5), (40, 40, 0.0, 0.06), (30, 9, 0.3, 0.4)]
)
def test_the_power_of_the_verbatim_test_is_a_sum_over_all_that_can_happen(
    rows: int, others: int, base: float, gap: float
) -> None:
    """A normal approximation promised to see 6 points among 40 rows, which are seen in one of ten cases."""
    naive = sum(
        math.comb(rows, a) * (base + gap) ** a * (1 - base - gap) ** (rows - a)
        * math.comb(others, b) * base**b * (1 - base) ** (others - b)
        for a in range(rows + 1) for b in range(others + 1)
        if fisher(a, rows, b, others) <= 0.05
    )  # fmt: skip
    assert power(rows, others, base, gap) == pytest.approx(naive, abs=1e-5)


def test_what_is_said_to_be_visible_is_found_in_eight_of_ten_cases_and_a_point_less_is_not() -> None:
    base = 0.5 / 257
    gap = least_gap(256, 256, base)
    assert power(256, 256, base, gap) >= 0.8 > power(256, 256, base, gap - 0.01)
    assert f"{100 * gap:.0f} points more" in verbatim_in_words(0, 256, 0, 256)
    assert "too few" in verbatim_in_words(0, 40, 0, 40)


def test_the_interval_of_the_mean_exposure_is_over_the_secrets() -> None:
    """Against the normal one of 200 secrets, half of them known."""
    generator = np.random.default_rng(0)
    nll = generator.normal(size=(200, 128))
    nll[::2, 0] = -9.0
    found = exposure_facts(nll, 0)
    limits, error = found["intervals"]["mean"], np.std(found["exposures"]) / math.sqrt(200)
    assert limits["value"] == found["mean"]
    assert limits["low"] == pytest.approx(found["mean"] - 1.96 * error, abs=0.1 * error)
    assert limits["high"] == pytest.approx(found["mean"] + 1.96 * error, abs=0.1 * error)
