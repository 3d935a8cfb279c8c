"""Baselines: scored on the same rows, in their own tokens and order of labels, and beaten only where that is beyond chance."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import planted
import tiny
from stillhouse.baselines import by_words
from stillhouse.data.encode import write_examples
from stillhouse.data.split import Prepared
from stillhouse.errors import DataError, GateError, MissingExtra, RecipeError
from stillhouse.finished import read_results
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.report.evidence import sections
from stillhouse.report.table import result_table
from stillhouse.runner import run
from stillhouse.static import static_checks
from stillhouse.steps.baselines import prepare_baselines
from stillhouse.steps.finish import check_gate
from tongues import save_other_student
from typed import hurried, stillhouse


def upside_down(teacher: Path, folder: Path) -> Path:
    """The same classifier with its outputs in the other order."""
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    head = model.classifier
    head.weight.data, head.bias.data = head.weight.data.flip(0), head.bias.data.flip(0)
    names = [model.config.id2label[number] for number in (1, 0)]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(teacher).save_pretrained(folder)
    return folder


def recipe_of(place: Path, **evaluate: Any) -> dict[str, Any]:
    """A classifier that is not trained for long, and whatever it is measured against."""
    return {
        "name": "labels", "task": "classification", "teacher": {"model": str(place / "teacher"), "dtype": "float32"},
        "student": {"from_teacher": {"layers": 1, "by": "every_nth"}},
        "data": {"train": {"source": str(place / "rows.csv")}, "split": 40, "max_length": 32},
        "train": {"steps": 4, "precision": "float32"}, "report": {"samples": 0},
        "evaluate": {"resamples": 200, "hard_only": False, "speed": False, **evaluate},
    }  # fmt: skip


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    place = tmp_path_factory.mktemp("baselines")
    tiny.save_classifier(place / "teacher")
    upside_down(place / "teacher", place / "turned")
    tiny.labelled_file(place / "rows.csv")
    wanted = ["tfidf", "majority", "uniform", {"name": "turned", "model": str(place / "turned")}]
    with hurried():
        return place, run(parse_recipe(recipe_of(place, baselines=wanted)), place / "run")


def values(model: dict[str, Any]) -> dict[str, float]:
    return {name: each["value"] for name, each in model["metrics"]["eval"].items()}


def test_a_model_with_its_labels_in_another_order_is_not_read_upside_down(
    classified: tuple[Path, dict[str, Any]],
) -> None:
    found = classified[1]
    turned, teacher = values(found["baselines"]["turned"]), values(found["teacher"])
    assert set(turned) == set(teacher)
    assert turned == pytest.approx(teacher, abs=1e-6), "the same weights say the same"
    assert turned["teacher_agreement"] == 1.0
    assert found["baselines"]["turned"]["parameters"] == found["teacher"]["parameters"]


def test_words_beat_a_student_that_learned_nothing_and_the_report_says_so(
    classified: tuple[Path, dict[str, Any]],
) -> None:
    """The rows' labels follow from a word, so counting words finds them; four steps of training do not."""
    found = classified[1]
    tfidf = found["baselines"]["tfidf"]
    assert tfidf["metrics"]["eval"]["accuracy"]["value"] == 1.0
    gap = tfidf["gains"]["eval"]["accuracy"]
    assert gap["value"] == pytest.approx(values(found["student"])["accuracy"] - 1.0)
    assert gap["better"] is False
    section = next(one for one in sections(found) if one.title.startswith("Baselines"))
    assert any("not shown to be better than" in line and "tfidf" in line for line in section.says)
    assert {"tfidf", "majority", "uniform", "turned"} <= {row[0] for row in result_table(found).rows}


def test_the_majority_is_the_floor_and_a_die_is_right_as_often_as_it_has_sides(
    classified: tuple[Path, dict[str, Any]],
) -> None:
    found = classified[1]
    majority = values(found["baselines"]["majority"])
    floor = {name: each["value"] for name, each in found["floor"]["metrics"]["eval"].items()}
    assert {name: majority[name] for name in floor} == pytest.approx(floor)
    uniform = values(found["baselines"]["uniform"])
    assert uniform["accuracy"] == pytest.approx(0.5)
    assert uniform["nll"] == pytest.approx(np.log(2.0))


def test_words_are_counted_on_the_training_rows_alone_as_scikit_learn_does(
    classified: tuple[Path, dict[str, Any]],
) -> None:
    """A baseline that saw the held-out rows would be hard to beat, and prove nothing."""
    folder = classified[0] / "run"
    rows = [json.loads(line) for line in (folder / "prepare/labelled-rows.jsonl").read_text().splitlines()]
    held = [json.loads(line) for line in (folder / "prepare/eval-rows.jsonl").read_text().splitlines()]
    assert len(rows) == classified[1]["data"]["rows"]["train"]
    assert not {row["text"] for row in rows} & {row["text"] for row in held}
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    model = LogisticRegression(C=10.0, max_iter=1000).fit(vectors.fit_transform(texts), labels)
    theirs = model.predict_proba(vectors.transform([row["text"] for row in held]))[:, ::-1]
    mine = by_words(texts, labels, ["good", "bad"], {"eval": [row["text"] for row in held]})["eval"]
    np.testing.assert_allclose(mine, theirs, atol=1e-9)


def test_a_label_that_no_training_row_has_gets_nothing() -> None:
    shares = by_words(["a b", "c d"], ["x", "z"], ["z", "y", "x"], {"eval": ["a b", "e"]})["eval"]
    assert shares is not None
    assert shares[:, 1].tolist() == [0.0, 0.0]
    assert shares[0, 2] > 0.5
    np.testing.assert_allclose(shares.sum(1), 1.0)


def test_a_gate_asks_for_more_than_words_can_do(classified: tuple[Path, dict[str, Any]]) -> None:
    place, found = classified
    recipe = parse_recipe({**recipe_of(place, baselines=["tfidf"]), "gate": {"better_than": ["tfidf"]}})
    with pytest.raises(
        GateError, match=r"gate\.better_than: the student is not better than tfidf in accuracy"
    ):
        check_gate(recipe, found)
    said = stillhouse("check", place / "run", "--better-than", "tfidf")
    assert (said.code, "accuracy on eval less that of tfidf is -" in said.err) == (6, True)
    assert "surely worse" in said.err


def test_a_baseline_that_is_beaten_passes_and_one_that_is_not_known_is_named(tmp_path: Path) -> None:
    gap = {"value": 0.2, "low": 0.1, "high": 0.3, "p": 0.01, "better": True}
    place = planted.run(tmp_path / "run", baselines={"tfidf": {"gains": {"eval": {"accuracy": gap}}}})
    assert stillhouse("check", place, "--better-than", "tfidf").code == 0
    said = stillhouse("check", place, "--better-than", "tfdif")
    assert (said.code, "Did you mean 'tfidf'" in said.err) == (2, True)
    assert read_results(place)["baselines"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluate": {"baselines": ["tfidf"]}}, "tfidf chooses labels"),
        ({"gate": {"better_than": ["big"]}}, "big is not among evaluate.baselines"),
        ({"evaluate": {"baselines": [{"name": "teacher", "model": "x/y"}]}}, "teacher has a meaning already"),
        ({"evaluate": {"baselines": ["tfidff"]}}, "Did you mean 'tfidf'"),
        ({"evaluate": {"baselines": [{"name": "x", "modell": "y"}]}}, "Did you mean 'model'"),
    ],
)
def test_a_baseline_that_cannot_be_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(tiny.language_recipe(tmp_path, **changes))


def test_what_is_missing_is_said_before_anything_runs(classified: tuple[Path, dict[str, Any]]) -> None:
    place, _ = classified
    recipe = parse_recipe(recipe_of(place, baselines=["tfidf"]))
    with (
        mock.patch("stillhouse.static.find_spec", return_value=None),
        pytest.raises(MissingExtra, match=r"stillhouse\[eval\]"),
    ):
        static_checks(recipe, place)
    (place / "empty").mkdir(exist_ok=True)
    recipe = parse_recipe(recipe_of(place, baselines=[{"name": "x", "model": str(place / "empty")}]))
    with pytest.raises(RecipeError, match=r"evaluate\.baselines: x\.model: .*no config\.json"):
        static_checks(recipe, place)


def test_language_models_are_compared_token_by_token_or_byte_by_byte(tmp_path: Path) -> None:
    """With the teacher's tokenizer all metrics are known; with another one only those that know no tokens."""
    recipe = tiny.language_recipe(tmp_path)
    save_other_student(tmp_path / "other")
    wanted = [
        {"name": "again", "model": str(tmp_path / "teacher")},
        {"name": "other", "model": str(tmp_path / "other")},
    ]
    recipe["evaluate"] = {
        "rows": 6, "resamples": 200, "speed": False, "hard_only": False, "baselines": wanted,
    }  # fmt: skip
    with hurried():
        found = run(
            parse_recipe({**recipe, "train": {"steps": 1, "precision": "float32"}, "report": {"samples": 0}}),
            tmp_path / "run",
        )
    again, other = (found["baselines"][name] for name in ("again", "other"))
    teacher = values(found["teacher"])
    assert {name: values(again)[name] for name in teacher} == pytest.approx(teacher, abs=1e-6)
    assert values(again)["teacher_top5"] == 1.0
    assert set(other["metrics"]["eval"]) == {"bits_per_byte"} == set(other["gains"]["eval"])
    gap = other["gains"]["eval"]["bits_per_byte"]["value"]
    assert gap == pytest.approx(values(found["student"])["bits_per_byte"] - values(other)["bits_per_byte"])


def test_words_of_rows_that_nobody_labelled_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    recipe = parse_recipe(recipe_of(tmp_path, baselines=["tfidf"]))
    write_examples(tmp_path / "train.parquet", [])
    rows = Prepared(train=[], eval=[], unlabelled=[], also={}, counts={}, dropped=[])
    with pytest.raises(DataError, match="tfidf learns from labelled training rows of at least two labels"):
        prepare_baselines(recipe, rows, ["0", "1"], tmp_path, Silent())
