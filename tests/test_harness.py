"""Tasks of the lm-evaluation-harness: the library itself, on a tiny model and a task in a YAML file."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import stillhouse.harness
import tiny
from stillhouse.data.split import Prepared
from stillhouse.errors import RecipeError
from stillhouse.harness import by_document, documents, documents_of, harness
from stillhouse.models.load import load_tokenizer
from stillhouse.pipeline import settings_of
from stillhouse.progress import Silent
from stillhouse.recipe import Harness, parse_recipe
from stillhouse.stages import STAGES
from stillhouse.static import harness_task, static_checks
from stillhouse.steps.reading import read_rows
from stillhouse.steps.writing import Desk
from stillhouse.tasks import make_task

QUESTIONS = [
    ("the cat", [" sat", " barked"], 0),
    ("the dog", [" sat", " barked"], 1),
    ("the sun", [" is hot", " is cold"], 0),
    ("the ice", [" is hot", " is cold"], 1),
    ("a bird", [" sings", " swims"], 0),
]


def task_file(folder: Path, name: str = "rainbow") -> Path:
    """A multiple-choice task of five questions."""
    rows = [dict(zip(("question", "choices", "answer"), each, strict=True)) for each in QUESTIONS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / f"{name}.yaml"
    path.write_text(
        f"""task: {name}  # ours
dataset_path: json
dataset_kwargs: {{data_files: {folder / "rows.jsonl"}}}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
    )
    return path


def asked(folder: Path, **wanted: Any) -> Any:
    teacher = tiny.save_language_model(folder / "teacher")
    task = make_task("causal_lm", load_tokenizer(teacher), 48)
    folders = dict.fromkeys(("teacher", "student", "hard_only"), teacher)
    return harness(
        folders, task, Harness(**wanted), folder, Silent(), batch_size=2, resamples=200, seed=0
    ), task


def test_a_task_in_a_file_gives_what_the_harness_itself_gives(tmp_path: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    path = task_file(tmp_path)
    found, task = asked(tmp_path, tasks=[str(path)])
    model = HFLM(pretrained=task.load(tmp_path / "teacher"), tokenizer=task.tokenizer, batch_size=1)
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    theirs = simple_evaluate(model=model, tasks=["rainbow"], task_manager=manager, bootstrap_iters=0)
    values = theirs["results"]["rainbow"]
    assert {one["metric"] for one in found} == {"acc", "acc_norm"}
    for one in found:
        assert one["documents"] == len(QUESTIONS)
        for model_name in ("teacher", "student", "hard_only"):
            assert one["models"][model_name]["value"] == pytest.approx(
                values[f"{one['metric']},none"], abs=1e-9
            )
        assert one["gain"]["value"] == 0.0, "the same model three times"
    kept = json.loads((tmp_path / "harness-teacher.json").read_text())
    assert len(set(kept["documents"]["rainbow"])) == len(QUESTIONS)
    for other in ("student", "hard_only"):
        assert json.loads((tmp_path / f"harness-{other}.json").read_text())["documents"] == kept["documents"]
    kept["scores"]["rainbow"]["acc"] = [1.0] * len(QUESTIONS)
    (tmp_path / "harness-teacher.json").write_text(json.dumps(kept))
    again, _ = asked(tmp_path, tasks=[str(path)])
    assert again[0]["models"]["teacher"]["value"] == 1.0, "what was asked is not asked again"


def kept(folder: Path, name: str, scores: dict[str, list[float]]) -> None:
    """What a model scored, as an evaluation that was stopped has it: one metric a task."""
    found = {
        "scores": {task: {"acc": values} for task, values in scores.items()},
        "higher_is_better": {task: {"acc": True} for task in scores},
    }
    (folder / f"harness-{name}.json").write_text(json.dumps(found))


def test_all_gains_share_one_error_rate_however_the_tasks_are_cut(tmp_path: Path) -> None:
    """Ten documents of twelve are beyond chance in one task, and not in one of ten; twenty of twenty are."""
    level, weak, sure = [1.0, 0.0] * 10, [1.0] * 10 + [0.0] * 2 + [1.0] * 8, [1.0] * 20
    weak_control = [0.0] * 10 + [1.0] * 2 + [1.0] * 8
    student = {"weak": weak, "sure": sure} | {f"level {n}": level for n in range(8)}
    control = {"weak": weak_control, "sure": [0.0] * 20} | {f"level {n}": level for n in range(8)}

    def gains(names: list[str]) -> dict[str, Any]:
        for model, scores in (("student", student), ("hard_only", control)):
            kept(tmp_path, model, {name: scores[name] for name in names})
        folders = dict.fromkeys(("student", "hard_only"), tmp_path)
        wanted = Harness(tasks=["x"])
        lines = harness(
            folders, cast(Any, None), wanted, tmp_path, Silent(), batch_size=1, resamples=4000, seed=0
        )
        return {one["task"]: one["gain"] for one in lines or []}

    alone, among = gains(["weak"])["weak"], gains(list(student))
    assert alone["better"] is True
    assert among["weak"]["p"] == alone["p"]
    assert among["weak"]["p_holm"] == pytest.approx(9 * alone["p"])
    assert among["weak"]["better"] is None
    assert among["sure"]["better"] is True
    assert among["level 0"]["p_holm"] == 1.0


def test_only_numbers_of_one_document_are_compared_and_filters_are_told_apart() -> None:
    samples = [
        {"metrics": ["acc", "perplexity"], "acc": True, "perplexity": (1.0, 2), "filter": "none"},
        {"metrics": ["exact"], "exact": 0.5, "filter": "strict"},
    ]
    assert by_document(samples) == {"acc": [1.0], "exact (strict)": [0.5]}


def test_a_document_is_known_by_what_was_asked_and_counted_once_for_all_filters() -> None:
    sums = {"doc_hash": "d", "target_hash": "t"}
    samples = [
        {**sums, "filter": name, "prompt_hash": f"{number}"}
        for name in ("strict", "loose")
        for number in range(3)
    ]
    assert len(set(documents_of(samples))) == len(documents_of(samples)) == 3
    changed = [{**one, "prompt_hash": "with two examples before it"} for one in samples[:3]]
    assert not set(documents_of(changed)) & set(documents_of(samples))


def test_an_unknown_task_is_one_sentence(tmp_path: Path) -> None:
    path = task_file(tmp_path)
    path.write_text(path.read_text().replace("rows.jsonl", "gone.jsonl"))
    with pytest.raises(RecipeError, match=r"evaluate\.harness\.tasks: rainbow: .*YAML files"):
        asked(tmp_path, tasks=[str(path)])


def test_a_file_that_is_not_there_or_names_no_task_is_found_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("dataset_path: json\n")
    values = tiny.language_recipe(tmp_path)
    for name, said in (("gone.yaml", "not there"), ("empty.yaml", "no line `task: name`")):
        recipe = parse_recipe({**values, "evaluate": {"harness": {"tasks": [str(tmp_path / name)]}}})
        with pytest.raises(RecipeError, match=said):
            static_checks(recipe, tmp_path)
    assert harness_task(str(task_file(tmp_path))) == "rainbow"
    assert harness_task("arc_easy") == "arc_easy"


def test_another_task_in_the_same_file_is_another_evaluation(tmp_path: Path) -> None:
    path = task_file(tmp_path)
    values = tiny.language_recipe(tmp_path)
    recipe = parse_recipe({**values, "evaluate": {"harness": {"tasks": [str(path)]}}})
    stage = next(stage for stage in STAGES if stage.name == "evaluate")
    assert stage.stamp is not None
    before = stage.stamp(recipe)
    path.write_text(path.read_text().replace("acc_norm", "acc_mutual_info"))
    assert stage.stamp(recipe) != before


# ── its documents in training rows ──────────────────────────────────────────────────────────────────────────────────

ASKED = [
    ("Which of the seven hills lies nearest to the old river?", ["the Aventine", "the Caelian"], 0),
    ("Who wrote down the long song of the blind ferryman?", ["his daughter", "nobody at all"], 1),
    ("Why does a kettle sing before its water boils?", ["small bubbles collapse", "steam is bored"], 0),
]


def long_task(folder: Path) -> Path:
    """The task with longer questions, in words around them."""
    path = task_file(folder)
    rows = [dict(zip(("question", "choices", "answer"), each, strict=True)) for each in ASKED]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = path.read_text()
    path.write_text(said.replace('"{{question}}"', '"Question: {{question}}\\nAnswer:"'))
    return path


def searched(folder: Path, texts: list[str], filter: dict[str, Any] | None, **evaluate: Any) -> Prepared:
    """The rows of a recipe whose training rows are its own and `texts`."""
    values = cast(Any, tiny.language_recipe(folder))
    own = [{"text": text} for text in tiny.sentences(60)]
    rows = [*own, *({"text": text} for text in texts)]
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values["data"] |= {"filter": filter, "eval": {"source": str(folder / "other.jsonl")}}
    values["data"].pop("split")
    values["evaluate"] = {**evaluate}
    return read_rows(parse_recipe(values), Silent())[0]


PLANTED = [
    "Question: Which of the seven hills lies nearest to the old river?\nAnswer: the Aventine",
    "QUESTION -- who wrote down; the LONG song of the blind Ferryman... answer, nobody AT ALL",
    "He asked: why does a KETTLE sing, before its water boils?  I did not know.",
]
INNOCENT = "Question: Which of the seven kettles lies nearest to the blind ferryman?"


def test_rows_that_give_away_a_document_of_a_task_are_dropped_with_its_name(tmp_path: Path) -> None:
    """Verbatim, in other case and punctuation, and the question alone inside another text."""
    wanted = {"tasks": [str(long_task(tmp_path))]}
    found = searched(tmp_path, [*PLANTED, INNOCENT], {}, harness=wanted)
    lost = {row["text"]: row["reason"] for row in found.dropped if "text" in row}
    assert lost == dict.fromkeys(PLANTED, "contains rainbow")
    assert INNOCENT in {row["text"] for row in found.train}
    without = searched(tmp_path, [*PLANTED, INNOCENT], {})
    assert {row["text"] for row in without.train} - {row["text"] for row in found.train} == set(PLANTED)


@pytest.mark.parametrize("filter", [None, {"contamination": None, "min_words": 1}])
def test_where_nobody_looks_for_contamination_no_task_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filter: dict[str, Any] | None
) -> None:
    def loaded(*_: Any) -> None:
        raise AssertionError("the harness was imported")

    monkeypatch.setattr(stillhouse.harness, "require", loaded)
    found = searched(tmp_path, PLANTED, filter, harness={"tasks": [str(long_task(tmp_path))]})
    assert set(PLANTED) <= {row["text"] for row in found.train}


def test_what_a_model_writes_may_give_away_no_document_either(tmp_path: Path) -> None:
    path = str(long_task(tmp_path))
    values = cast(Any, tiny.language_recipe(tmp_path))
    values["data"]["generate"] = [{"kind": "paraphrase"}]
    recipe = parse_recipe({**values, "evaluate": {"harness": {"tasks": [path]}}})
    assert recipe.looked_for == [path], "what is written is always searched"
    rows = Prepared([], [], [], {}, [], {}, documents=documents([path], Silent()))
    new: list[Any] = [{"id": text, "where": "w", "text": text} for text in (*PLANTED, INNOCENT)]
    reasons: Counter[str] = Counter()
    desk = SimpleNamespace(recipe=recipe, drop=lambda where, reason, row: reasons.update([reason]))
    assert [row["text"] for row in Desk.sifted(cast(Any, desk), new, [], rows)] == [INNOCENT]
    assert reasons == {"contains rainbow": 3}


def test_a_task_by_name_that_cannot_be_fetched_is_left_out_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = stillhouse.harness._manager

    def offline(names: list[str]) -> Any:
        if names == ["arc_easy"]:
            raise ConnectionError("the hub is not to be reached\nat all")
        return known(names)

    monkeypatch.setattr(stillhouse.harness, "_manager", offline)
    notes: list[str] = []
    watch = Silent()
    monkeypatch.setattr(watch, "note", notes.append)
    found = documents(["arc_easy", str(long_task(tmp_path))], watch)
    assert list(found) == ["rainbow"]
    assert notes[0] == "  not looked for: arc_easy (ConnectionError: the hub is not to be reached)"


def test_a_file_whose_data_are_gone_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    path = long_task(tmp_path)
    path.write_text(path.read_text().replace("rows.jsonl", "gone.jsonl"))
    with pytest.raises(RecipeError, match=r"evaluate\.harness\.tasks: rainbow: .*YAML files"):
        documents([str(path)], Silent())


def test_rows_are_prepared_anew_when_a_tasks_data_change_and_not_for_tasks_that_nobody_looks_for(
    tmp_path: Path,
) -> None:
    path = long_task(tmp_path)
    values = cast(Any, tiny.language_recipe(tmp_path))
    stage = next(stage for stage in STAGES if stage.name == "prepare")
    assert stage.stamp is not None

    def with_(filter: dict[str, Any] | None, **evaluate: Any) -> Any:
        return parse_recipe({**values, "data": {**values["data"], "filter": filter}, "evaluate": evaluate})

    bare, asked = with_(None), with_(None, harness={"tasks": [str(path)]})
    assert settings_of(stage, asked) == settings_of(stage, bare)
    assert stage.stamp(asked) == stage.stamp(bare)
    sifted, searched = with_({}), with_({}, harness={"tasks": [str(path)], "limit": 3})
    assert {*settings_of(stage, sifted)} == {*stage.reads}, "older runs stay as they are"
    assert settings_of(stage, searched)["looked_for"] == [str(path)]
    before = stage.stamp(searched)
    (tmp_path / "rows.jsonl").write_text((tmp_path / "rows.jsonl").read_text() * 2)
    assert stage.stamp(searched) != before
