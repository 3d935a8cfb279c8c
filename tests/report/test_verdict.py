"""The first line is honest whichever way the run went."""

from typing import Any, get_args

from report_fixtures import classifier, language_model, measured
from stillhouse.data.perturb import CHANGES
from stillhouse.held_out import BY_TEACHER, HALVES, KINDS, MADE, PARAPHRASE, SWAPPED, UNSWAPPED
from stillhouse.recipe.outputs import Evaluate
from stillhouse.report.verdict import failed_claims, verdict


def _with_headline(value: float, better: bool | None) -> dict[str, Any]:
    results = language_model()
    gain = measured(value, 0.02) | {"p": 0.01, "better": better}
    results["gain_over_hard_only"] = gain
    results["gains"]["eval"]["bits_per_byte"] = gain
    return results


def _first(text: str) -> str:
    return text.partition(". ")[0]


def test_a_student_that_beats_its_control_says_what_it_kept_and_where_it_won():
    text = verdict(_with_headline(-0.04, True))
    assert _first(text) == (
        "The student keeps 91 % (89–93 %) of what the teacher knows in bits per byte at 60 % of its parameters and "
        "1.7× its generation speed"
    )
    assert "Distillation beats the hard-targets-only control on bits per byte (eval)" in text
    assert "worse on token accuracy (year_2889)" in text
    assert "on token accuracy (eval) and bits per byte (year_2889) it makes no difference" in text


def test_a_tie_with_the_control_is_the_first_sentence_not_a_footnote():
    text = verdict(_with_headline(-0.01, None))
    assert _first(text).startswith("Distillation did not beat plain fine-tuning on bits per byte")
    assert "no difference that 64 rows can show" in _first(text)
    assert "It did beat it on perplexity, teacher agreement and teacher KL (eval and year_2889)" in text


def test_a_loss_against_the_control_is_the_first_sentence_with_its_size():
    text = verdict(_with_headline(0.05, False))
    assert _first(text + " ").startswith(
        "Distillation did not beat plain fine-tuning on bits per byte: the student is worse"
    )
    assert "by 0.05 [0.03, 0.07] bits." in text
    assert " beats " not in text


def test_a_loss_on_a_metric_where_higher_is_better_is_reported_as_a_positive_size():
    results = classifier()
    gain = measured(-0.03, 0.01) | {"p": 0.001, "better": False}
    results["gain_over_hard_only"] = results["gains"]["eval"]["accuracy"] = gain
    assert "worse than the hard-targets-only control by 0.030 [0.020, 0.040]." in verdict(results)


def test_a_student_that_beats_its_control_nowhere_is_not_said_to_beat_it_somewhere():
    results = _with_headline(-0.01, None)
    for metrics in results["gains"].values():
        for gain in metrics.values():
            gain["better"] = None
    assert "It beat it nowhere." in verdict(results)
    assert "did beat" not in verdict(results)


def test_without_a_control_nothing_is_claimed_about_the_teacher():
    results = language_model() | {"gain_over_hard_only": None, "gains": {}}
    del results["controls"]["hard_only"]
    assert "nothing is claimed about the teacher's help" in verdict(results)
    assert "beat" not in verdict(results)


def test_undefined_retention_gives_its_reason_instead_of_a_number():
    results = language_model() | {
        "retention": {
            "value": None,
            "low": None,
            "high": None,
            "note": "the teacher is no better than the floor",
        }
    }
    assert "cannot be said: the teacher is no better than the floor." in verdict(results)


def test_every_comparison_that_is_not_a_win_is_listed_as_a_failed_claim():
    results = language_model()
    lost = [
        gain
        for metrics in results["gains"].values()
        for gain in metrics.values()
        if gain["better"] is not True
    ]
    assert len(failed_claims(results)) == len(lost)


def test_a_run_that_measured_no_other_domain_says_so_and_how_to():
    said = "Other domains: nothing was measured beyond the held-out rows of the source; name another data set in evaluate.also."
    assert said not in failed_claims(language_model())
    for results in (language_model(), classifier()):
        results["datasets"].pop("year_2889", None)
        assert said in failed_claims(results)
        results["datasets"]["eval_typos"] = results["datasets"]["eval"]
        assert said in failed_claims(results), "changed rows are the source's, too"
        results["datasets"]["elsewhere"] = results["datasets"]["eval"]
        assert said not in failed_claims(results)


def test_every_set_that_is_made_of_the_held_out_rows_is_known_to_be_of_the_source():
    made = get_args(get_args(Evaluate.model_fields["perturb"].annotation)[0])
    assert set(made) == set(KINDS) == {*CHANGES, PARAPHRASE}
    beside = {SWAPPED, HALVES, UNSWAPPED, f"eval{BY_TEACHER}"}
    assert set(MADE) == {f"eval_{kind}" for kind in made} | beside
    results = language_model()
    results["datasets"] = dict.fromkeys(["eval", *MADE], results["datasets"]["eval"])
    assert any(claim.startswith("Other domains: nothing") for claim in failed_claims(results))


def test_a_student_that_is_no_smaller_faster_or_better_than_nothing_is_told_so():
    results = language_model()
    results["student"]["parameters"] = results["teacher"]["parameters"]
    results["student"]["throughput"] = dict(results["teacher"]["throughput"])
    results["retentions"]["eval"] = measured(0.01, 0.05)
    results["controls"]["initial"]["metrics"] = results["student"]["metrics"]
    claims = " ".join(failed_claims(results))
    assert "not fewer than the teacher's" in claims
    assert "is not faster" in claims
    assert "not shown to be better than the floor" in claims
    assert "did not improve on the student before" in claims
