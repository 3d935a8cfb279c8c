"""Many tests, many changed rows, and a mended temperature: against hand counts and references."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from stillhouse.measure import (
    CLASSIFICATION_METRICS,
    FINE_BINS,
    LM_METRICS,
    TEMPERATURES,
    best_temperature,
    claimed,
    classification_rows,
    clustered,
    difference,
    evaluate,
    family,
    flip_rows,
    holm,
    least_visible,
    mended,
    shift_facts,
    shift_rows,
    with_merged_bins,
)
from stillhouse.measure.mending import softmax
from stillhouse.measure.metrics import rank_correlation

ACCURACY = CLASSIFICATION_METRICS["accuracy"]
FEW = {"resamples": 400, "seed": 0}


def alone(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every row is a unit."""
    return rows


def test_holm_against_a_hand_count() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_keeps_the_rate_of_any_false_alarm_at_5_percent() -> None:
    generator = np.random.default_rng(0)
    alarms = sum(min(holm(generator.random(20).tolist())) <= 0.05 for _ in range(1000))
    assert 30 <= alarms <= 70


def test_one_comparison_in_twenty_is_not_claimed_but_the_headline_is() -> None:
    gain = {"value": 1.0, "low": 0.1, "high": 2.0, "p": 0.03, "better": True, "note": None}
    level = {**gain, "p": 0.6, "better": None}
    found = claimed(
        {"eval": {"accuracy": gain, "nll": gain, **{f"m{n}": level for n in range(8)}}}, "accuracy"
    )["eval"]
    assert found["accuracy"]["better"] is True
    assert found["accuracy"]["p_holm"] is None
    assert found["nll"]["better"] is None
    assert found["nll"]["p_holm"] == pytest.approx(0.27)
    assert "among 9 comparisons" in found["nll"]["note"]


def test_a_family_claims_what_holm_carries_and_leaves_what_was_never_claimed() -> None:
    gain = {"value": 1.0, "low": 0.1, "high": 2.0, "better": True, "note": None}
    tests = {"sure": 0.004, "close": 0.03, "worse": 0.005, "never": 0.2}
    gains = {
        name: {**gain, "p": p, "better": {"worse": False, "never": None}.get(name, True)}
        for name, p in tests.items()
    }
    found = family({**gains, "unknown": {**gain, "p": None, "better": None}})
    assert [found[name]["p_holm"] for name in tests] == pytest.approx([0.016, 0.06, 0.016, 0.2])
    assert [found[name]["better"] for name in tests] == [True, None, False, None]
    assert found["unknown"]["p_holm"] is None
    assert family({"only": gains["close"]})["only"]["better"] is True, "one test is no family"


def test_a_difference_as_large_as_the_least_visible_one_is_found_in_80_of_100() -> None:
    error, ones = float(np.sqrt(2 / 100)), np.ones(100)
    seen = least_visible(-1.96 * error, 1.96 * error) or 0.0
    found = 0
    for seed in range(200):
        a, b = np.random.default_rng([4, seed]).normal(size=(2, 100))
        rows = {"correct": a + seen, "texts": ones}, {"correct": b, "texts": ones}
        found += difference(ACCURACY, *rows, resamples=400).p <= 0.05
    assert 0.72 <= found / 200 <= 0.88


def test_shift_is_the_changed_rows_less_the_clean_ones() -> None:
    clean = {"correct": np.array([1.0, 1, 1, 0]), "texts": np.ones(4)}
    changed = {"correct": np.array([1.0, 0, 0, 0]), "texts": np.ones(4)}
    facts = shift_facts(
        {"teacher": shift_rows(clean, clean, ACCURACY), "student": shift_rows(clean, changed, ACCURACY)},
        resamples=200, seed=0,
    )  # fmt: skip
    assert facts["models"]["student"]["value"] == -0.5
    assert facts["extra"]["value"] == -0.5


def test_flips_are_answers_that_change() -> None:
    one, two = np.eye(2)[[0, 1, 1]], np.eye(2)[[0, 0, 1]]
    assert flip_rows({"pred": one}, {"pred": two})["flips"].tolist() == [0, 1, 0]


@pytest.fixture
def overconfident() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(4000, 3)) * 1.5
    labels = (softmax(logits).cumsum(1) < generator.random((4000, 1))).sum(1)
    return 2.5 * logits, labels


def test_the_mending_temperature_is_the_one_that_was_planted(
    overconfident: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, labels = overconfident
    rows = classification_rows(softmax(logits), labels)
    found = mended(rows, alone, **FEW)
    assert found is not None
    assert found["temperature"] == pytest.approx(2.5, rel=0.06)
    assert found["nll_mended"] == pytest.approx(log_loss(labels, softmax(logits / 2.5)), rel=0.01)
    assert found["ece_mended"] < found["ece"] / 3
    assert set(found["intervals"]) == {"temperature", "nll", "nll_mended", "ece", "ece_mended"}
    for name, limits in found["intervals"].items():
        assert limits["low"] < limits["value"] == found[name] < limits["high"], name


def test_the_interval_of_the_temperature_holds_the_planted_one_in_95_percent() -> None:
    """T of a logit that is 2.5 times too large is 2.5 whatever the rows are; 100 sets of 200 rows (of 1,500, 94 % hold it)."""
    held = 0
    for seed in range(100):
        generator = np.random.default_rng([8, seed])
        logits = generator.normal(size=(200, 2)) * 1.5
        labels = (softmax(logits).cumsum(1) < generator.random((200, 1))).sum(1)
        found = mended(classification_rows(softmax(2.5 * logits), labels), alone, resamples=200, seed=seed)
        limits = found["intervals"]["temperature"]
        held += limits["low"] <= 2.5 <= limits["high"]
    assert 0.90 <= held / 100 <= 0.99


def test_rows_of_one_document_are_resampled_together_when_a_temperature_is_chosen(
    overconfident: tuple[np.ndarray, np.ndarray],
) -> None:
    """Each row four times: as rows of their own the interval would be half as wide."""
    logits, labels = (part[:400] for part in overconfident)
    once, four = (classification_rows(softmax(np.tile(logits, (n, 1))), np.tile(labels, n)) for n in (1, 4))
    documents = [str(n) for n in range(400)] * 4

    def width(found: dict) -> float:
        return found["intervals"]["temperature"]["high"] - found["intervals"]["temperature"]["low"]

    whole = width(mended(four, lambda rows: clustered(rows, documents), **FEW))
    assert whole == pytest.approx(width(mended(once, alone, **FEW)), rel=1e-3)
    assert width(mended(four, alone, **FEW)) < 0.6 * whole


def language_rows(best: float, spread: float = 0.02, count: int = 60) -> dict[str, np.ndarray]:
    """Windows of 10 tokens whose nats are 1 + (log T − log best)², and noise that is the same at each T."""
    generator = np.random.default_rng(0)
    curve = 1 + (np.log(TEMPERATURES) - np.log(best)) ** 2 + spread * generator.normal(size=(count, 1))
    tilt = spread * generator.normal(size=(count, 1)) * np.log(TEMPERATURES)
    return {"nll_at": 10 * (curve + tilt), "nll_at_count": np.full(count, 10.0)}


def test_a_language_models_curve_is_a_parabola_whose_vertex_is_found_with_its_interval() -> None:
    rows = language_rows(1.4)
    found = mended(rows, alone, **FEW)
    square, slope, level = np.polyfit(np.log(TEMPERATURES[3:6]), (rows["nll_at"] / 10).mean(0)[3:6], 2)
    assert found["temperature"] == pytest.approx(np.exp(-slope / (2 * square)), rel=1e-9)
    assert found["nll_mended"] == pytest.approx(level - slope**2 / (4 * square), rel=1e-9)
    assert found["nll"] == pytest.approx((rows["nll_at"][:, 3] / 10).mean(), rel=1e-12)
    limits = found["intervals"]["temperature"]
    assert limits["low"] < 1.4 < limits["high"] < limits["low"] * 1.02


def test_a_limit_beyond_the_temperatures_that_were_tried_is_not_known() -> None:
    found = mended(language_rows(1.75, spread=0.8), alone, **FEW)
    assert found["intervals"]["temperature"]["low"] < found["temperature"]
    assert found["intervals"]["temperature"]["high"] is None


def logit_rows(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    return classification_rows(softmax(logits), labels)


def test_the_limits_of_a_classifiers_temperature_hold_it_and_are_none_beyond_what_was_tried() -> None:
    """Few sure rows: resampled temperatures reach the end of what is tried, and what is reflected must not hide that."""
    ended = 0
    for seed in range(30):
        generator = np.random.default_rng([3, seed])
        logits = generator.normal(size=(60, 2)) * 3
        labels = (softmax(logits).cumsum(1) < generator.random((60, 1))).sum(1)
        rows = logit_rows(logits, labels)
        found = mended(rows, alone, resamples=200, seed=seed)
        limits, best = found["intervals"]["temperature"], found["temperature"]
        assert limits["value"] == best
        assert limits["low"] is None or best * np.exp(-1.5) < limits["low"] <= best
        assert limits["high"] is None or best <= limits["high"]
        drawn = [
            best_temperature(rows["log_probs"][some], labels[some])
            for some in generator.integers(0, 60, size=(100, 60))
        ]
        if np.mean(np.array(drawn) < best * np.exp(-1.6)) > 0.06:
            ended += 1
            assert limits["low"] is None
    assert ended, "or nothing was tried"


def test_where_all_documents_are_alike_the_temperature_still_lies_in_its_interval(
    overconfident: tuple[np.ndarray, np.ndarray],
) -> None:
    """Every resample has the same curve, whose parabola is a little beside the best temperature of the rows."""
    logits, labels = (np.concatenate([part[:40]] * 50) for part in overconfident)
    documents = [str(n // 40) for n in range(2000)]
    found = mended(logit_rows(logits, labels), lambda rows: clustered(rows, documents), **FEW)
    limits = found["intervals"]["temperature"]
    assert limits["low"] <= found["temperature"] <= limits["high"]
    assert 0 < limits["high"] - limits["low"] < 0.01 * found["temperature"]


def test_a_model_that_is_always_right_has_a_coldest_temperature_and_no_interval() -> None:
    labels = np.arange(60) % 2
    found = mended(logit_rows(4.0 * np.eye(2)[labels], labels), alone, **FEW)
    assert found["temperature"] == pytest.approx(0.01, rel=1e-5)
    limits = found["intervals"]["temperature"]
    assert (limits["low"], limits["high"]) == (None, None) and "coldest" in limits["note"]


def test_too_few_rows_mend_nothing(overconfident: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = overconfident
    assert mended(classification_rows(softmax(logits[:20]), labels[:20]), alone, **FEW) is None


def test_adaptive_calibration_error_against_a_loop(overconfident: tuple[np.ndarray, np.ndarray]) -> None:
    shares, labels = softmax(overconfident[0][:3000]), overconfident[1][:3000]
    confidence, right = shares.max(1), shares.argmax(1) == labels
    parts = np.array_split(np.argsort(confidence, kind="stable"), 15)
    expected = sum(abs(confidence[part].mean() - right[part].mean()) * len(part) for part in parts) / 3000
    found = evaluate(CLASSIFICATION_METRICS["adaptive_ece"], classification_rows(shares, labels))
    assert found == pytest.approx(expected, abs=1e-9)


def merged(confidence: np.ndarray, right: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of one-token rows of a language model, with its bins merged."""
    bins = np.eye(FINE_BINS)[np.ceil(confidence * FINE_BINS).astype(int) - 1]
    fine = {"fine_count": bins, "fine_conf": bins * confidence[:, None], "fine_acc": bins * right[:, None]}
    return with_merged_bins({**fine, "tokens": np.ones(len(bins))})


@pytest.mark.parametrize("sure", [0.3, 1.0, 6.0])
def test_a_language_models_adaptive_error_is_within_what_its_fine_bins_can_hide(sure: float) -> None:
    """Against bins that are exactly equally full; the two differ by tokens that lie at borders, and by no more."""
    generator = np.random.default_rng(3)
    confidence = generator.beta(sure, 1.0, 20_000).clip(1e-3)
    right = (generator.random(20_000) < confidence**1.5).astype(float)
    parts = np.array_split(np.argsort(confidence, kind="stable"), 15)
    exact = sum(abs((confidence - right)[part].sum()) for part in parts) / 20_000
    rows = merged(confidence, right)
    assert evaluate(LM_METRICS["adaptive_ece"], rows) == pytest.approx(exact, abs=2e-3)
    assert not any(name.startswith("fine_") for name in rows)


def test_merged_bins_lose_no_token_and_never_find_more_error_than_the_fine_ones() -> None:
    generator = np.random.default_rng(5)
    confidence, right = generator.random(4000).clip(1e-3), (generator.random(4000) < 0.5).astype(float)
    rows = merged(confidence, right)
    assert rows["even_conf"].sum() == pytest.approx(confidence.sum())
    assert rows["even_acc"].sum() == right.sum()
    bins = np.ceil(confidence * FINE_BINS).astype(int)
    gaps = np.bincount(bins, weights=confidence - right)
    assert evaluate(LM_METRICS["adaptive_ece"], rows) <= np.abs(gaps).sum() / 4000


def test_tokens_that_are_all_alike_share_a_merged_bin() -> None:
    right = np.array([1.0] * 40 + [0.0] * 10)
    assert evaluate(LM_METRICS["adaptive_ece"], merged(np.full(50, 0.8), right)) == pytest.approx(
        0.0, abs=1e-12
    )


def test_equal_confidences_share_a_bin() -> None:
    shares = np.tile([0.8, 0.2], (50, 1))
    found = evaluate(
        CLASSIFICATION_METRICS["adaptive_ece"], classification_rows(shares, np.array([0] * 40 + [1] * 10))
    )
    assert found == pytest.approx(0.0, abs=1e-12)


def test_both_divergences_against_a_loop(overconfident: tuple[np.ndarray, np.ndarray]) -> None:
    q, p = softmax(overconfident[0][:50]), softmax(overconfident[0][50:100])
    rows = classification_rows(q, overconfident[1][:50], p)
    np.testing.assert_allclose(rows["kl"], (p * np.log(p / q)).sum(1), atol=1e-9)
    np.testing.assert_allclose(rows["reverse_kl"], (q * np.log(q / p)).sum(1), atol=1e-9)


def test_rank_correlation_against_pandas() -> None:
    import pandas

    generator = np.random.default_rng(0)
    one, two = generator.random((20, 6)), generator.integers(0, 3, (20, 6)).astype(float)
    expected = [pandas.Series(a).corr(pandas.Series(b), method="pearson") for a, b in zip(
        pandas.DataFrame(one).rank(axis=1).to_numpy(), pandas.DataFrame(two).rank(axis=1).to_numpy(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(rank_correlation(one, two), np.nan_to_num(expected), atol=1e-9)


def test_macro_f1_and_accuracy_are_those_of_scikit_learn(
    overconfident: tuple[np.ndarray, np.ndarray],
) -> None:
    shares, labels = softmax(overconfident[0]), overconfident[1]
    rows = classification_rows(shares, labels)
    assert evaluate(CLASSIFICATION_METRICS["macro_f1"], rows) == pytest.approx(
        f1_score(labels, shares.argmax(1), average="macro"), abs=1e-9
    )
