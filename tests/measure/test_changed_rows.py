"""Changed rows of a language model beside the clean ones, against loops written out here."""

from typing import Any

import numpy as np
import pytest

from stillhouse.evidence import evidence
from stillhouse.kept import RowIndex
from stillhouse.measure import LM_METRICS, Rows

MODELS = ("teacher", "student", "hard_only")


def statistics(nats: Any, sizes: Any) -> Rows:
    """Of rows that say nothing else."""
    return {"nll": np.asarray(nats, float), "bytes": np.asarray(sizes, float), "tokens": np.ones(len(sizes))}


def index_of(names: list[str]) -> RowIndex:
    return RowIndex(names, names, names, [9] * len(names), [None] * len(names))


def found_in(sets: dict[str, list[str]], kept: dict[str, dict[str, Rows]]) -> dict[str, Any]:
    index = {kind: index_of(names) for kind, names in sets.items()}
    metrics = LM_METRICS["teacher_agreement"], LM_METRICS["bits_per_byte"]
    return evidence(kept, index, None, [], *metrics, resamples=400, seed=0)


@pytest.fixture
def drawn() -> tuple[dict[str, list[str]], dict[str, dict[str, Rows]], dict[str, dict[str, Any]]]:
    """Sets whose rows come in other orders and are not all on both sides; statistics; nats by model, set and row."""
    generator = np.random.default_rng(1)
    names = [f"r{number}" for number in range(30)]
    sizes = {name: float(generator.integers(5, 40)) for name in names}
    sets = {
        "eval": ["w0", "w1"],  # windows of several rows each
        "eval_halves": names,
        "eval_typos": [*names[:3:-1], "gone"],
        "eval_unswapped": names[10:20],
        "eval_swapped": names[19:9:-1],
    }
    nats: dict[str, dict[str, Any]] = {
        model: {
            kind: {name: float(generator.gamma(2.0, 10.0)) for name in some} for kind, some in sets.items()
        }
        for model in MODELS
    }
    size = {
        **{(kind, name): sizes.get(name, 7.0) for kind, some in sets.items() for name in some},
        ("eval_typos", "r9"): 2.0,  # its answer was cut off
        **{("eval_swapped", name): sizes[name] + 3.0 for name in names[10:20]},  # "she" for "he"
    }
    kept = {
        model: {
            kind: statistics([nats[model][kind][name] for name in some], [size[kind, name] for name in some])
            for kind, some in sets.items()
        }
        for model in MODELS
    }
    return sets, kept, {"nats": nats, "size": size}


def test_what_a_change_costs_is_measured_on_the_rows_that_both_sides_count_whole(drawn: Any) -> None:
    sets, kept, truth = drawn
    facts = found_in(sets, kept)["robustness"]["eval_typos"]
    mine = [name for name in sets["eval_typos"] if name not in ("gone", "r9")]
    refused = set(sets["eval_halves"]) - set(sets["eval_typos"])
    assert len(refused) == 4 and facts["rows"] == len(mine)
    assert facts["left_out"] == len(refused) + 1, "of the clean rows: those refused, and the one cut off"
    expected = {}
    for model in MODELS:
        total = sum(truth["size"]["eval_halves", name] for name in mine) * np.log(2.0)
        after, before = (
            sum(truth["nats"][model][kind][name] for name in mine) for kind in ("eval_typos", "eval_halves")
        )
        expected[model] = (after - before) / total
        assert facts["models"][model]["value"] == pytest.approx(expected[model], abs=1e-12)
    assert facts["extra"]["value"] == pytest.approx(expected["student"] - expected["teacher"], abs=1e-12)


def test_a_swap_is_the_mean_distance_in_bits_per_byte_and_its_drift_that_of_the_student(drawn: Any) -> None:
    sets, kept, truth = drawn
    facts = found_in(sets, kept)["counterfactual"]

    def level(model: str, kind: str, name: str) -> float:
        return truth["nats"][model][kind][name] / truth["size"][kind, name] / float(np.log(2.0))

    expected = {
        model: np.mean(
            [
                abs(level(model, "eval_swapped", name) - level(model, "eval_unswapped", name))
                for name in sets["eval_swapped"]
            ]
        )
        for model in MODELS
    }
    assert facts["rows"] == 10 and facts["metric"] == "moved"
    for model in MODELS:
        assert facts["models"][model]["value"] == pytest.approx(expected[model], abs=1e-12)
        assert facts["models"][model]["low"] < expected[model] < facts["models"][model]["high"]
    assert facts["drift"]["value"] == pytest.approx(expected["student"] - expected["teacher"], abs=1e-12)
    assert facts["inherited"]["value"] == pytest.approx(
        expected["student"] - expected["hard_only"], abs=1e-12
    )


def test_a_change_that_changes_nothing_costs_nothing(drawn: Any) -> None:
    sets, kept, _ = drawn
    same = dict.fromkeys(("eval", "eval_longer", "eval_swapped"), sets["eval_halves"])
    mine = {model: dict.fromkeys(same, kept[model]["eval_halves"]) for model in MODELS}
    found = found_in(same, mine)
    for facts in (found["robustness"]["eval_longer"], found["counterfactual"]):
        assert [facts["models"][model]["value"] for model in MODELS] == [0.0] * 3


def test_a_pair_of_which_no_byte_is_counted_says_nothing() -> None:
    sets = {"eval": ["a", "b"], "eval_swapped": ["a", "b"]}
    before, after = statistics([1.0, 3.0], [10.0, 0.0]), statistics([2.0, 9.0], [10.0, 0.0])
    found = found_in(sets, {key: {"eval": before, "eval_swapped": after} for key in MODELS})
    assert found["counterfactual"]["models"]["student"]["value"] == pytest.approx(0.1 / np.log(2.0))


def test_where_no_answer_fits_on_both_sides_it_is_said_and_no_number_is_made_up() -> None:
    sets = {"eval": ["a", "b"], "eval_longer": ["a", "b"]}
    before, after = statistics([1.0, 3.0], [10.0, 8.0]), statistics([2.0, 9.0], [4.0, 5.0])
    found = found_in(sets, {key: {"eval": before, "eval_longer": after} for key in MODELS})
    assert found["robustness"]["eval_longer"] == {"rows": 0, "left_out": 2, "models": {}, "extra": None}


@pytest.mark.parametrize("column", ["pred", "nll"])
def test_swapped_rows_without_their_clean_ones_end_no_run_and_make_up_no_number(column: str) -> None:
    sets = {"eval": ["a", "b"], "eval_swapped": ["c", "d"]}
    rows = statistics([1.0, 3.0], [10.0, 8.0]) | ({"pred": np.eye(2)} if column == "pred" else {})
    facts = found_in(sets, {key: dict.fromkeys(sets, rows) for key in MODELS})["counterfactual"]
    assert (facts["rows"], facts["metric"]) == (0, "flips" if column == "pred" else "moved")
    assert (facts["models"], facts["drift"], facts["inherited"]) == ({}, None, None)
