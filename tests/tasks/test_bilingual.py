"""A classifying teacher with another tokenizer: it reads each text itself, in its own tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.data.augment import MADE
from stillhouse.data.encode import read_examples, remade
from stillhouse.data.formats import with_id
from stillhouse.errors import DataError, RecipeError
from stillhouse.files import read_json, read_jsonl
from stillhouse.kept import read_rows, rows_path
from stillhouse.models.load import load_model, load_tokenizer, parameters
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.runner import run_stages
from stillhouse.tasks import make_task
from stillhouse.tasks.bilingual import BilingualClassification, as_read_by, voice
from stillhouse.teachers.cache import SoftTargetCache
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


def test_a_row_made_of_tokens_is_read_by_what_they_say_and_its_mask_stays_one(
    folders: tuple[Path, Path],
) -> None:
    task = between(folders)
    (example, *_), _ = task.encode(ROWS)
    ids = [example.input_ids[0], task.tokenizer.mask_token_id, *example.input_ids[2:]]
    (made,) = task.as_other([remade(example, ids, [0], f"{example.row}{MADE}1")])
    said = task.tokenizer.decode(example.input_ids[2:], skip_special_tokens=True)
    assert task.other.tokenizer.mask_token is None, "so it is left out"
    assert made.input_ids == task.other.tokenizer(f" {said}")["input_ids"]
    assert made.labels == [0]
    back = BilingualClassification(task.tokenizer, task.tokenizer, 40, ["bad", "good"])
    (same,) = back.as_other([remade(example, ids, [0], f"{example.row}{MADE}1")])
    assert task.tokenizer.mask_token_id in same.input_ids


def test_a_row_whose_text_nobody_knows_is_no_text_made_up(folders: tuple[Path, Path]) -> None:
    task = between(folders)
    (example, *_), _ = task.encode(ROWS)
    with pytest.raises(DataError, match=r"row 0: nobody knows how the teacher's tokenizer cuts it"):
        between(folders).as_other([example])


def test_texts_that_only_the_teacher_can_tell_apart_stay_two_examples(folders: tuple[Path, Path]) -> None:
    """Unknown pieces, and long ends that the student does not read: the same tokens to it, and one target for both would be wrong."""
    task = between(folders)
    pairs = [("the house ☃", "the house ❄"), ("old " * 60 + "good", "old " * 60 + "bad")]
    for one, other in pairs:
        (first, second), _ = task.encode(
            [{"id": "a", "where": "", "text": one}, {"id": "b", "where": "", "text": other}]
        )
        assert first.input_ids == second.input_ids
        theirs = task.as_other([first, second])
        assert (first.key != second.key) == (theirs[0].input_ids != theirs[1].input_ids)
        assert theirs[0].input_ids == task.other.tokenizer(one, truncation=True, max_length=40)["input_ids"]
        assert theirs[1].input_ids == task.other.tokenizer(other, truncation=True, max_length=40)["input_ids"]


def test_texts_cut_together_are_cut_as_one_after_the_other(folders: tuple[Path, Path]) -> None:
    rows = [dict(row, id=str(n), text=f"{row['text']} {n}") for n in range(700) for row in ROWS]
    for folder in folders:
        task = make_task("classification", load_tokenizer(folder), 16, ["bad", "good"])
        together, _ = task.encode(rows)
        assert together == [one for row in rows for one in task.encode([row])[0]]


def test_a_folder_of_neither_tokenizer_is_handed_no_ids(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """A checkpoint without a tokenizer loads as an empty one, and would be taken for the teacher."""
    load_model(folders[1], "AutoModelForSequenceClassification").save_pretrained(tmp_path / "bare")
    with pytest.raises(RecipeError, match="neither the student's"):
        between(folders).load(tmp_path / "bare")


def test_a_distiller_from_python_takes_a_classifier_of_another_tokenizer(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
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


def test_a_trimmed_student_and_a_term_that_compares_layers_are_refused_in_a_sentence(tmp_path: Path) -> None:
    layers = [{"kind": "forward_kl"}, {"kind": "hidden"}]
    with pytest.raises(RecipeError, match=r"student\.vocabulary: .* and hidden compares the same ones"):
        parse_recipe(recipe_of(tmp_path, objective=layers, label={"online": True}))


def teachers_own(folder: Path, run: Path, texts: list[str]) -> torch.Tensor:
    """[texts, 2] log-probabilities of the run's teacher, asked without this package's batches."""
    tokenizer = load_tokenizer(folder)
    model = load_model(run / "teacher" / "model" if (run / "teacher" / "model").exists() else folder, "AutoModelForSequenceClassification")  # fmt: skip
    with torch.no_grad():
        logits = [
            model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=32)).logits
            for text in texts
        ]
    return torch.cat(logits).log_softmax(-1)


def test_what_is_kept_and_measured_is_what_the_teacher_says_of_each_text_even_when_the_vocabulary_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurry: None
) -> None:
    """Ids of two trimmed vocabularies mean different pieces: a target found by them would be another text's."""
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    folder = tiny.save_classifier(tmp_path / "teacher")
    tiny.labelled_file(tmp_path / "rows.csv")
    run = tmp_path / "run"
    for vocabulary in (90, 110):
        student = {"from_teacher": {"layers": [0, 2]}, "vocabulary": vocabulary}
        values = recipe_of(tmp_path, student=student, teacher={"model": str(folder), "dtype": "float32"})
        values["evaluate"] = {**values["evaluate"], "perturb": ["capitals"], "speed": False}
        run_stages(parse_recipe(values), run, Silent())
        label = read_json(run / "label" / "DONE.json")["result"]
        cache = SoftTargetCache(run / label["cache"], label["meta"])
        examples = read_examples(run / "prepare" / "train.parquet")
        with open(tmp_path / "rows.csv", encoding="utf-8") as file:
            texts = [line.rpartition(",")[0] for line in file.read().splitlines()[1:]]
        by_id = {with_id({"text": text, "label": text.rstrip(".").split()[-1]})["id"]: text for text in texts}  # type: ignore[typeddict-item]
        said = teachers_own(folder, run, [by_id[one.row] for one in examples])
        for example, expected in zip(examples, said, strict=True):
            kept = cache.get(example.key)
            found = torch.empty(2)
            found[kept.ids[0]] = kept.log_p[0]
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)
        for kind in ("eval", "eval_capitals"):
            rows = read_jsonl(run / "prepare" / f"{kind}-rows.jsonl")
            known = {row["id"]: row["text"] for row in rows}
            held = [known[one.row] for one in read_examples(run / "prepare" / f"{kind}.parquet")]
            measured = read_rows(rows_path(run / "evaluate", "teacher", kind))["log_probs"]
            torch.testing.assert_close(torch.from_numpy(measured).float(), teachers_own(folder, run, held), rtol=1e-3, atol=1e-4)  # fmt: skip


def test_a_run_of_two_tokenizers_that_was_moved_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurry: None
) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    tiny.save_classifier(tmp_path / "teacher")
    tiny.labelled_file(tmp_path / "rows.csv")
    recipe = parse_recipe(recipe_of(tmp_path))
    run_stages(recipe, tmp_path / "run", Silent(), until="initial")
    (tmp_path / "run").rename(tmp_path / "moved")
    run_stages(recipe, tmp_path / "moved", Silent(), until="train")
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "moved" / "train" / "model").exists()


def test_a_search_among_trimmed_shapes_reads_the_students_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurry: None
) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    tiny.save_classifier(tmp_path / "teacher")
    tiny.labelled_file(tmp_path / "rows.csv")
    student = {"target": {"parameters": "14K"}, "vocabulary": 90, "search": {"candidates": 2, "steps": 1, "batch_size": 2, "rows": 4}}  # fmt: skip
    run_stages(
        parse_recipe(recipe_of(tmp_path, student=student)), tmp_path / "run", Silent(), until="initial"
    )
    assert len(load_tokenizer(tmp_path / "run" / "initial" / "model")) <= 90


def test_from_python_layers_and_swapped_labels_of_another_tokenizer_are_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    teacher = load_model(folders[0], "AutoModelForSequenceClassification")
    student = load_model(folders[1], "AutoModelForSequenceClassification")
    own = {"model": student, "args": tiny.arguments(tmp_path), "train_dataset": tiny.opinions(4), "processing_class": load_tokenizer(folders[1])}  # fmt: skip
    with pytest.raises(RecipeError, match="another tokenizer, and hidden compares the same tokens"):
        Distiller(teacher=Foreign(teacher, load_tokenizer(folders[0])), objective=[kd.hidden(1.0)], **own)
    teacher.config.id2label = {0: "good", 1: "bad"}
    with pytest.raises(RecipeError, match="labels are in the order good, bad, and the student's bad, good"):
        Distiller(teacher=Foreign(teacher, load_tokenizer(folders[0])), objective=[kd.forward_kl(1.0)], **own)


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
