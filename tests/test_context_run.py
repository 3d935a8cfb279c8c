"""Whole runs whose teacher reads a passage with each row, which the student never sees."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import tiny
from partly import SILENT_PLAN
from stillhouse import run
from stillhouse.data.encode import read_examples
from stillhouse.errors import DataError, RecipeError
from stillhouse.files import read_json, read_jsonl, write_json
from stillhouse.losses.sparse import topk_log_probs
from stillhouse.models.load import load_tokenizer
from stillhouse.pipeline import run_pipeline
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.stages import STAGES
from stillhouse.static import static_checks
from stillhouse.steps import prepare
from stillhouse.tasks import make_task
from stillhouse.tasks.context import prefixes
from stillhouse.teachers.cache import SoftTargetCache
from typed import hurried


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model, and questions each with a passage of its own (one of them longer than a row may be)."""
    place = tmp_path_factory.mktemp("made")
    tiny.save_language_model(place / "lm", layers=1)
    passages = tiny.sentences(40, seed=5)
    passages[0] = " ".join(passages[1:4])
    rows = [{**row, "passage": passage} for row, passage in zip(tiny.completions(40), passages, strict=True)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def values(made: Path, rows: Path | None = None) -> dict[str, Any]:
    return {
        "name": "passages", "task": "causal_lm",
        "teacher": {"model": str(made / "lm"), "dtype": "float32", "context": {"column": "passage"}},
        "student": {"model": str(made / "lm")},
        "data": {"train": {"source": str(rows or made / "rows.jsonl")}, "split": 10, "max_length": 48},
        "label": {"top_k": 8, "batch_size": 4}, "objective": [{"kind": "forward_kl"}],
        "train": {"steps": 3, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": {"resamples": 200, "speed": False}, "report": {"samples": 2},
    }  # fmt: skip


def folder_for(place: Path) -> Path:
    place.mkdir()
    write_json(place / "machine.json", {"bfloat16": False})
    return place


def test_the_teacher_reads_each_rows_passage_and_the_student_does_not(made: Path, tmp_path: Path) -> None:
    """Kept targets against a forward pass over passage and row, written out by hand; samples go on from the passage as well."""
    place = folder_for(tmp_path / "run")
    with hurried():
        found = run(parse_recipe(values(made)), place)
    task = make_task("causal_lm", load_tokenizer(made / "lm"), 48)
    model = task.load(made / "lm")
    passage = {row["prompt"]: row["passage"] for row in read_jsonl(made / "rows.jsonl")}
    label = read_json(place / "label" / "DONE.json")["result"]
    cache = SoftTargetCache(place / label["cache"], label["meta"])
    examples = read_examples(place / "prepare" / "train.parquet")
    assert len(examples) == 30
    for example in examples:
        first = next(n for n, token in enumerate(example.labels) if token >= 0)
        prompt = task.tokenizer.decode(example.input_ids[:first], skip_special_tokens=True)
        assert "passage" not in prompt and len(example.input_ids) <= 48
        before, instead_of = prefixes(task.tokenizer, passage[prompt])
        skip = len(instead_of) if example.input_ids[: len(instead_of)] == instead_of else 0
        ids = before + example.input_ids[skip:]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :, : task.outcomes]
        at = [len(before) - skip + n - 1 for n, token in enumerate(example.labels) if n and token >= 0]
        wanted_ids, wanted = topk_log_probs(logits[at], 8)
        kept = cache.get(example.key)
        for position in range(len(at)):
            said = dict(zip(kept.ids[position].tolist(), kept.log_p[position].tolist(), strict=True))
            for token, log_p in zip(wanted_ids[position].tolist(), wanted[position].tolist(), strict=True):
                assert said.get(token, log_p) == pytest.approx(log_p, abs=0.07)
            assert wanted_ids[position, 0].item() in said
    for sample in found["samples"]:
        ids = task.tokenizer(sample["prompt"], add_special_tokens=False)["input_ids"]
        plain = task.tokenizer.decode(ids, skip_special_tokens=True)
        before, instead_of = prefixes(task.tokenizer, passage[plain])
        skip = len(instead_of) if ids[: len(instead_of)] == instead_of else 0
        whole = before + ids[skip:]
        with torch.no_grad():
            best = int(model(torch.tensor([whole])).logits[0, -1, : task.outcomes].argmax())
        assert sample["teacher"].startswith(task.tokenizer.decode([best], skip_special_tokens=True))


def test_another_passage_is_another_teacher_and_the_same_student_rows(made: Path, tmp_path: Path) -> None:
    rows = read_jsonl(made / "rows.jsonl")
    other = tmp_path / "rows.jsonl"
    results = []
    for name, passage in (("one", rows[5]["passage"]), ("two", "the river.")):
        rows[5]["passage"] = passage
        other.write_text("".join(json.dumps(row) + "\n" for row in rows))
        place = folder_for(tmp_path / name)
        results.append(
            run_pipeline(parse_recipe(values(made, other)), SILENT_PLAN, place, Silent(), until="teacher")
        )
    assert results[0]["teacher"]["identity"] != results[1]["teacher"]["identity"]
    keys = [sorted(one.key for one in read_examples(tmp_path / name / "prepare" / "train.parquet")) for name in ("one", "two")]  # fmt: skip
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda row: row.pop("passage"), r"rows.jsonl:8: there is no column 'passage' for teacher.context"),
        (lambda row: row.update(passage=" "), r"rows.jsonl:8: passage, from which teacher.context is taken, holds no text"),
    ],
)  # fmt: skip
def test_a_row_without_a_passage_is_named(made: Path, tmp_path: Path, change: Any, remedy: str) -> None:
    rows = read_jsonl(made / "rows.jsonl")
    change(rows[7])
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for check in (
        lambda recipe: static_checks(recipe, tmp_path / "run"),
        lambda recipe: run_pipeline(recipe, STAGES, folder_for(tmp_path / "run"), Silent(), until="prepare"),
    ):
        with pytest.raises(DataError, match=remedy) as error:
            check(parse_recipe(values(made, path)))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("fixed", [False, True])
def test_a_row_that_does_not_fit_the_teacher_after_its_context_is_named(
    made: Path, tmp_path: Path, fixed: bool
) -> None:
    """The longest one just fits a teacher of so many positions, and not one of a position less."""
    task = make_task("causal_lm", load_tokenizer(made / "lm"), 48)
    rows = [
        {**row, "id": str(number), "where": ""} for number, row in enumerate(read_jsonl(made / "rows.jsonl"))
    ]
    passages = ["Be brief. " * 3 if fixed else row["passage"] for row in rows]
    sizes = []
    for example, passage in zip(task.encode(rows)[0], passages, strict=True):
        before, instead_of = prefixes(task.tokenizer, passage)
        begins = example.input_ids[: len(instead_of)] == instead_of
        sizes.append(len(before) + len(example.input_ids) - (len(instead_of) if begins else 0))
    recipe = values(made)
    recipe["teacher"] |= {"model": str(tmp_path / "lm")} | ({"context": passages[0]} if fixed else {})
    shutil.copytree(made / "lm", tmp_path / "lm")
    config = read_json(made / "lm" / "config.json")
    for name, most in (("fits", max(sizes)), ("too long", max(sizes) - 1)):
        write_json(tmp_path / "lm" / "config.json", {**config, "max_position_embeddings": most})
        place = folder_for(tmp_path / name)
        if name == "fits":
            run_pipeline(parse_recipe(recipe), SILENT_PLAN, place, Silent(), until="prepare")
            continue
        said = rf"rows.jsonl:\d+: takes {max(sizes)} tokens after its teacher.context, and the teacher reads {most} at most"
        with pytest.raises(DataError, match=said) as error:
            run_pipeline(parse_recipe(recipe), SILENT_PLAN, place, Silent(), until="prepare")
        assert "\n" not in str(error.value)


def test_a_passage_that_many_rows_have_is_put_into_the_template_once(made: Path, tmp_path: Path) -> None:
    """Each row's length was told by two templates of its own."""
    rows = [
        {**row, "passage": ("the river.", "a book.")[number % 2]}
        for number, row in enumerate(read_jsonl(made / "rows.jsonl"))
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with mock.patch.object(prepare, "prefixes", side_effect=prefixes) as rendered:
        run_pipeline(
            parse_recipe(values(made, path)),
            SILENT_PLAN,
            folder_for(tmp_path / "run"),
            Silent(),
            until="prepare",
        )
    sets = ("train", "eval")
    assert 2 <= rendered.call_count <= 2 * len(sets), "once a set at most"


def test_plain_text_has_no_rows_to_give_a_passage_to(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text, "passage": "x"}) + "\n" for text in tiny.sentences(9)))
    with pytest.raises(DataError, match="plain text is cut and joined"):
        static_checks(parse_recipe(values(made, path)), tmp_path / "run")


@pytest.mark.parametrize(
    ("section", "change", "remedy"),
    [
        ("data", {"generate": [{"kind": "self_instruct", "rows": 4}], "writer": {"model": "w"}}, "what is written has no column"),
        ("evaluate", {"memorisation": {}}, "what it plants has no column"),
        ("teacher", {"context": {"colum": "passage"}}, r"teacher.context.colum: no such key. Did you mean .column.\?"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_passage_for_each_row_is_named(
    made: Path, section: str, change: dict[str, Any], remedy: str
) -> None:
    recipe = values(made)
    recipe[section] |= change
    with pytest.raises(RecipeError, match=remedy):
        parse_recipe(recipe)
