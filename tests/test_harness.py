"""Tasks of the lm-evaluation-harness: the library itself, on a tiny model and a task in a YAML file."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

import tiny
from stillhouse.errors import RecipeError
from stillhouse.harness import by_document, documents_of, harness
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.recipe import Harness, parse_recipe
from stillhouse.stages import STAGES
from stillhouse.static import harness_task, static_checks
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
