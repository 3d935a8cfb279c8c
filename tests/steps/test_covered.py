"""`evaluate.coverage`: production inputs are compared with the training rows, and nothing else is done with them."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from stillhouse.errors import RecipeError
from stillhouse.pipeline import run_pipeline
from stillhouse.progress import Silent
from stillhouse.recipe import Recipe, parse_recipe
from stillhouse.stages import STAGES
from stillhouse.static import static_checks


def classifier_recipe(place: Path, **data: Any) -> dict[str, Any]:
    """A classifier of labelled rows, and inputs of production without labels, of which one is like no training row."""
    place.mkdir(exist_ok=True)
    tiny.save_classifier(place / "teacher")
    tiny.labelled_file(place / "rows.csv")
    lines = [{"text": text} for text in [*tiny.sentences(10, seed=5), "quarks gluons bind hadrons"]]
    (place / "inputs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return {
        "name": "labels",
        "task": "classification",
        "teacher": {"model": str(place / "teacher"), "dtype": "float32"},
        "student": {"from_config": {"config": shape}},
        "data": {"train": {"source": str(place / "rows.csv")}, "split": 40, "max_length": 32, **data},
        "label": {"top_k": 2},
        "objective": [{"kind": "forward_kl"}],
        "evaluate": {"coverage": [{"name": "production", "source": str(place / "inputs.jsonl")}]},
    }


def prepared(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What the stage `prepare` says of the rows."""
    run_pipeline(recipe, STAGES, folder, Silent(), until="prepare")
    found: dict[str, Any] = json.loads((folder / "prepare" / "DONE.json").read_text())["result"]
    return found


def test_texts_without_labels_are_compared_and_read_by_no_model(tmp_path: Path) -> None:
    recipe = parse_recipe(classifier_recipe(tmp_path))
    assert any("evaluate.coverage.production" in note for note in static_checks(recipe, tmp_path / "run"))
    found = prepared(recipe, tmp_path / "run")
    assert list(found["coverage"]) == ["within_train", "eval", "production"]
    told = found["coverage"]["production"]
    assert told["rows"] == 11
    assert "quarks gluons bind hadrons" in told["least_covered"]
    assert "labels" not in told
    assert found["evaluated"] == ["eval"]
    assert set(found["sets"]) == {"train", "eval"}
    assert not list((tmp_path / "run" / "prepare").glob("*production*"))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Which quarks?"},
        {"text": "Which quarks?"},
        {"messages": [{"role": "user", "content": "Which quarks?"}]},
        {"instruction": "Which quarks?", "input": ""},
    ],
)
def test_prompts_without_answers_are_compared(tmp_path: Path, row: dict[str, Any]) -> None:
    recipe = tiny.language_recipe(tmp_path)
    (tmp_path / "asked.jsonl").write_text(json.dumps(row) + "\n")
    asked = {"name": "production", "source": str(tmp_path / "asked.jsonl")}
    read = parse_recipe({**recipe, "evaluate": {"coverage": [asked]}})
    static_checks(read, tmp_path / "run")
    found = prepared(read, tmp_path / "run")
    assert found["coverage"]["production"]["least_covered"] == ["Which quarks?"]
    assert found["evaluated"] == ["eval"]


def test_rows_of_augmentation_are_told_apart_from_the_others(tmp_path: Path) -> None:
    bare = prepared(parse_recipe(classifier_recipe(tmp_path / "bare")), tmp_path / "bare" / "run")["coverage"]
    augment = {"copies": 2, "splice": 1.0}
    recipe = parse_recipe(classifier_recipe(tmp_path / "more", augment=augment))
    more = prepared(recipe, tmp_path / "more" / "run")["coverage"]
    assert "without_made" not in bare["eval"]
    assert more["eval"]["rows_looked_at"] > 2 * bare["eval"]["rows_looked_at"]
    for measured in ("words_known", "nearest"):
        assert more["eval"]["without_made"][measured] == bare["eval"][measured]
    assert more["within_train"] == bare["within_train"]
    assert more["eval"]["lengths"]["without_made"] == bare["eval"]["lengths"]["train"]
    assert more["eval"]["words_known"]["3"] >= bare["eval"]["words_known"]["3"]


def test_a_name_that_is_another_sets_is_refused(tmp_path: Path) -> None:
    recipe = tiny.language_recipe(tmp_path)
    source = str(tmp_path / "text.jsonl")
    for also, name in (("other", "other"), ("other", "eval"), ("other", "within_train")):
        evaluate = {
            "also": [{"name": also, "source": source}],
            "coverage": [{"name": name, "source": source}],
        }
        with pytest.raises(RecipeError, match="evaluate.coverage: names must differ"):
            parse_recipe({**recipe, "evaluate": evaluate})
