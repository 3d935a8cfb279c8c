"""A language model is measured on another domain than that of its rows, unless its recipe says otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from stillhouse import reference
from stillhouse.errors import DataError, RecipeError
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.runner import run_stages
from stillhouse.sources import check, resolve
from stillhouse.static import static_checks

PLAIN = {"rows": 12, "resamples": 200}


def recipe_with(folder: Path, **changes: Any) -> Any:
    """The tiny language recipe, which names no other data set."""
    return parse_recipe(tiny.language_recipe(folder, **{"evaluate": PLAIN, **changes}))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_not_given_is_the_language_reference_for_as_many_rows_as_are_held_out(
    tmp_path: Path, python_reference: None
) -> None:
    (also,) = recipe_with(tmp_path).other_domains
    assert (also.name, also.source, also.limit) == ("python_reference", "python:reference", None)
    assert recipe_with(tmp_path, evaluate={}).other_domains[0].limit == reference.ROWS
    assert parse_recipe(tiny.masked_recipe(tmp_path)).other_domains[0].name == "python_reference"


def test_a_recipe_that_names_a_set_or_none_gets_what_it_names(tmp_path: Path, python_reference: None) -> None:
    assert recipe_with(tmp_path, evaluate={**PLAIN, "also": []}).other_domains == []
    assert [one.name for one in parse_recipe(tiny.language_recipe(tmp_path)).other_domains] == ["other"]


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "classification", "label": {"top_k": 2}},
        {"teacher": {"api": {"base_url": "http://localhost:1/v1", "model": "big"}}, "objective": [{"kind": "hard"}],
         "student": {"model": "small"}, "label": {}},
        {"teacher": {"model": "big", "context": "Be brief."}, "label": {"online": True}},
        {"data": {"train": {"source": "python:reference"}}},
    ],
    ids=["no text to go on with", "asking costs", "a context before each row", "trained on it"],
)  # fmt: skip
def test_nobody_reads_it_unasked_who_could_not_or_should_not(
    tmp_path: Path, python_reference: None, changes: dict[str, Any]
) -> None:
    assert recipe_with(tmp_path, **changes).other_domains == []


def test_a_python_without_it_says_in_one_note_that_nothing_else_is_measured(tmp_path: Path) -> None:
    notes = static_checks(recipe_with(tmp_path), tmp_path)
    (note,) = [note for note in notes if note.startswith("evaluate.also")]
    assert "no other domain will be measured" in note and "name a data set" in note
    assert not [
        n
        for n in static_checks(recipe_with(tmp_path, evaluate={"also": []}), tmp_path)
        if "evaluate.also" in n
    ]
    with pytest.raises(DataError, match=r"pydoc_data\.topics.*name another data set"):
        check("python:reference", kind="data")


def test_the_passages_are_prose_and_no_paragraph_is_there_twice() -> None:
    found = list(reference.passages())
    paragraphs = [paragraph for row in found for paragraph in row["text"].split("\n\n")]
    assert len(found) > 150 and len({row["topic"] for row in found}) > 40
    assert len(set(paragraphs)) == len(paragraphs)
    assert not [one for one in paragraphs if "::=" in one or ">>>" in one or "\n" in one]
    assert found == list(reference.passages())


def test_the_source_is_a_file_of_the_cache_with_its_licence_and_is_mended_there(
    cache: Path, python_reference: None
) -> None:
    found = resolve("python:reference", kind="data")
    assert found.licence == "PSF-2.0" and found.path.is_relative_to(cache)
    whole = found.path.read_bytes()
    assert [json.loads(line) for line in whole.splitlines()] == list(reference.passages())
    found.path.write_bytes(whole[:100])
    assert resolve("python:reference", kind="data") == found
    assert found.path.read_bytes() == whole
    with pytest.raises(RecipeError, match="sha256 has no meaning here"):
        resolve("python:reference", sha256="0" * 64, kind="data")
    with pytest.raises(RecipeError, match="not known"):
        resolve("python:docs", kind="data")


def test_a_training_row_that_is_in_it_is_dropped_and_counted(
    tmp_path: Path, cache: Path, python_reference: None
) -> None:
    """It is a held-out set like any other: what models are measured on they have not learned."""
    tiny.language_recipe(tmp_path)
    sets = {
        name: {"source": str(tmp_path / file)}
        for name, file in (("train", "text.jsonl"), ("eval", "other.jsonl"))
    }
    recipe = recipe_with(tmp_path, data={**sets, "max_length": 48})
    with (tmp_path / "text.jsonl").open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({"text": next(reference.passages())["text"]}) + "\n")
    run_stages(recipe, tmp_path / "run", Silent(), until="prepare")
    facts = json.loads((tmp_path / "run" / "prepare" / "DONE.json").read_text())["result"]
    assert facts["counts"]["train"]["dropped"] == {"also in python_reference": 1}
    assert facts["sets"]["python_reference"]["rows"] == PLAIN["rows"]
    assert facts["licences"]["python_reference"] == "PSF-2.0"
    assert "python_reference" in facts["evaluated"] and "python_reference" in facts["coverage"]
