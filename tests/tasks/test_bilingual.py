"""A classifying teacher with another tokenizer: it reads each text itself, in its own tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.data.encode import remade
from stillhouse.errors import RecipeError
from stillhouse.files import read_json
from stillhouse.models.load import load_model, load_tokenizer, parameters
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.runner import run_stages
from stillhouse.tasks import make_task
from stillhouse.tasks.bilingual import BilingualClassification, as_read_by, voice
from stillhouse.teachers.cross import Foreign

ROWS: list[dict[str, Any]] = [
    {"id": "0", "where": "row 1", "text": "The OLD house", "label": "good"},
    {
        "id": "1",
        "where": "row 2",
        "text": "a river",
        "pair": "the small quiet model learns ☃",
        "label": "bad",
    },
    {"id": "2", "where": "row 3", "text": "unlabelled, and unknown: Ærøskøbing"},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a teacher that reads byte-level BPE, a student that reads WordPiece)"""
    place = tmp_path_factory.mktemp("bilingual")
    student = tiny.save_classifier(place / "student")
    teacher = tiny.save_classifier(place / "teacher", layers=2)
    config = read_json(teacher / "config.json")
    assert len(tiny.language_tokenizer()) > config["vocab_size"], "ids of the one are not ids of the other"
    model = load_model(teacher, "AutoModelForSequenceClassification")
    model.resize_token_embeddings(len(tiny.language_tokenizer()))
    model.save_pretrained(teacher)
    tiny.language_tokenizer().save_pretrained(teacher)
    return teacher, student


def between(folders: tuple[Path, Path]) -> BilingualClassification:
    teacher, student = folders
    return BilingualClassification(load_tokenizer(student), load_tokenizer(teacher), 40, ["bad", "good"])


def test_each_model_says_what_it_says_of_the_plain_text_alone(folders: tuple[Path, Path]) -> None:
    task = between(folders)
    examples, _ = task.encode(ROWS)
    for folder in folders:
        model = task.load(folder)
        alone = make_task("classification", load_tokenizer(folder), 40, ["bad", "good"])
        own, _ = alone.encode(ROWS)
        with torch.no_grad():
            expected = alone.scores(alone.load(folder), alone.collate(own))
            found = task.scores(model, task.collate(examples))
        torch.testing.assert_close(found.hidden, expected.hidden)
        assert found.labels.tolist() == expected.labels.tolist() == [1, 0, -100]
        assert [one.input_ids for one in as_read_by(task, model, examples)] == [one.input_ids for one in own]
        assert voice(task, model).tokenizer.get_vocab() == alone.tokenizer.get_vocab()


def test_a_row_made_of_tokens_is_read_by_what_they_say(folders: tuple[Path, Path]) -> None:
    task = between(folders)
    (example, *_), _ = task.encode(ROWS)
    (made,) = task.as_other([remade(example, example.input_ids[:3], [0], "made")])
    said = task.tokenizer.decode(example.input_ids[:3], skip_special_tokens=True)
    assert made.input_ids == task.other.tokenizer(said)["input_ids"]
    assert made.labels == [0]


def test_texts_kept_by_a_run_are_those_that_the_teacher_reads(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    task = between(folders)
    examples, _ = task.encode(ROWS)
    kept = [{"key": one.key, "text": "another", "label": "bad"} for one in examples]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    teacher, student = (load_tokenizer(folder) for folder in folders)
    later = BilingualClassification(student, teacher, 40, ["bad", "good"], tmp_path / "texts.jsonl")
    assert {tuple(one.input_ids) for one in later.as_other(examples)} == {
        tuple(teacher("another")["input_ids"])
    }


def test_a_distiller_from_python_takes_a_classifier_of_another_tokenizer(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """The loss of a student that is its own teacher behind another tokenizer's folder would be zero only by chance: here it
    must fall."""
    teacher = load_model(folders[0], "AutoModelForSequenceClassification")
    student = load_model(folders[1], "AutoModelForSequenceClassification")
    made = Distiller(
        model=student,
        teacher=Foreign(teacher, load_tokenizer(folders[0])),
        objective=[kd.forward_kl(1.0)],
        args=tiny.arguments(tmp_path, max_steps=30, learning_rate=5e-3),
        train_dataset=tiny.opinions(32),
        processing_class=load_tokenizer(folders[1]),
    )
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def recipe_of(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "apart", "task": "classification",
        "teacher": {"model": str(folder / "teacher"), "dtype": "float32", "finetune": {"epochs": 1.0, "learning_rate": 1e-3}},
        "student": {"from_teacher": {"layers": [0, 2], "hidden_size": 16, "rows": 8}, "vocabulary": 90},
        "data": {"train": {"source": str(folder / "rows.csv")}, "split": 20, "max_length": 32},
        "label": {"top_k": 2, "batch_size": 8},
        "objective": [{"kind": "forward_kl"}],
        "train": {"steps": 2, "precision": "float32"},
        "evaluate": {"resamples": 200, "hard_only": False},
        "report": {"samples": 1},
        **changes,
    }  # fmt: skip


def test_a_classifying_teacher_keeps_its_tokens_when_its_student_loses_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurry: None
) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    whole = tiny.save_classifier(tmp_path / "teacher")
    tiny.labelled_file(tmp_path / "rows.csv")
    run_stages(parse_recipe(recipe_of(tmp_path)), tmp_path / "run", Silent())
    teacher, student = tmp_path / "run" / "teacher" / "model", tmp_path / "run" / "student"
    vocabulary = load_tokenizer(whole).get_vocab()
    assert load_tokenizer(teacher).get_vocab() == vocabulary
    assert set(load_tokenizer(student).get_vocab()) < set(vocabulary)
    found = read_json(tmp_path / "run" / "results.json")
    assert found["teacher"]["parameters"] == parameters(
        load_model(whole, "AutoModelForSequenceClassification")
    )
    small = load_model(student, "AutoModelForSequenceClassification")
    assert found["student"]["parameters"] == parameters(small)
    assert small.config.vocab_size == len(load_tokenizer(student)) <= 90
    assert not (tmp_path / "run" / "initial" / "trimmed").exists()


def test_the_student_begins_from_the_fine_tuned_teacher_and_not_from_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurry: None
) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    tiny.save_classifier(tmp_path / "teacher")
    tiny.labelled_file(tmp_path / "rows.csv")
    values = recipe_of(tmp_path, student={"from_teacher": {"layers": [0, 2]}, "vocabulary": 90})
    run_stages(parse_recipe(values), tmp_path / "run", Silent(), until="initial")
    kind = "AutoModelForSequenceClassification"
    tuned, made = (load_model(tmp_path / "run" / name / "model", kind) for name in ("teacher", "initial"))
    before = load_model(tmp_path / "teacher", kind)
    kept = [load_tokenizer(tmp_path / "teacher").get_vocab()[piece] for piece, _ in sorted(
        load_tokenizer(tmp_path / "run" / "initial" / "model").get_vocab().items(), key=lambda pair: pair[1])]  # fmt: skip
    mine = made.get_input_embeddings().weight
    torch.testing.assert_close(mine, tuned.get_input_embeddings().weight[kept])
    assert not torch.equal(mine, before.get_input_embeddings().weight[kept])


def test_a_term_that_compares_layers_has_the_teacher_trimmed_alike(tmp_path: Path) -> None:
    apart = parse_recipe(recipe_of(tmp_path))
    layers = [{"kind": "forward_kl"}, {"kind": "hidden"}]
    alike = parse_recipe(recipe_of(tmp_path, objective=layers, label={"online": True}))
    assert apart.vocabulary_apart
    assert not alike.vocabulary_apart


def test_a_student_of_another_family_learns_classes_from_a_recipe(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurry: None
) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    tiny.labelled_file(tmp_path / "rows.csv")
    values = recipe_of(
        tmp_path,
        teacher={"model": str(folders[0]), "dtype": "float32"},
        student={"model": str(folders[1])},
        train={"steps": 60, "learning_rate": 3e-3, "precision": "float32"},
    )
    run_stages(parse_recipe(values), tmp_path / "run", Silent())
    found = read_json(tmp_path / "run" / "results.json")
    before, after = (found[name]["metrics"]["eval"]["teacher_kl"]["value"] for name in ("student", "teacher"))
    assert after == 0.0
    assert before < found["controls"]["initial"]["metrics"]["eval"]["teacher_kl"]["value"]


def test_layers_of_two_tokenizers_are_refused_in_a_sentence(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurry: None
) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    tiny.labelled_file(tmp_path / "rows.csv")
    values = recipe_of(
        tmp_path, teacher={"model": str(folders[0])}, student={"model": str(folders[1])},
        objective=[{"kind": "hidden"}], label={"online": True},
    )  # fmt: skip
    with pytest.raises(RecipeError, match="hidden compares the same tokens; use {kind: forward_kl}"):
        run_stages(parse_recipe(values), tmp_path / "run", Silent())
