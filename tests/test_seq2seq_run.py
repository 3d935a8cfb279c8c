"""Whole runs of encoder–decoders: a fine-tuned teacher, a student cut out of it, and a student of the teacher's own targets."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from stillhouse import run
from stillhouse.compare import compare
from stillhouse.data.encode import read_examples
from stillhouse.errors import RecipeError
from stillhouse.files import read_json, read_jsonl
from stillhouse.kept import read_answered
from stillhouse.measure import ANSWER_METRICS, evaluate
from stillhouse.models.load import load_tokenizer
from stillhouse.plans.failing import readable
from stillhouse.recipe import parse_recipe
from stillhouse.static import static_checks
from stillhouse.tasks import make_task
from stillhouse.tasks.writing import greedy
from typed import Said, hurried, stillhouse, write_recipe

ALONE = """
import sys, transformers
sys.modules["stillhouse"] = None
model = transformers.AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1])
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
made = model.generate(**tokenizer("the old house", return_tensors="pt"), max_new_tokens=6)
print(type(model).__name__, len(model.encoder.block), len(model.decoder.block), made.shape[0])
"""


def recipe(inputs: Path, **changes: Any) -> dict[str, Any]:
    """A run of some seconds; its teacher, who knows nothing, and rows are written into `inputs`."""
    if not (inputs / "teacher").exists():
        tiny.save_translator(inputs / "teacher", "t5")
        tiny.translation_file(inputs / "rows.jsonl", 240)
        prompts = "".join(
            json.dumps({"prompt": row["prompt"]}) + "\n" for row in tiny.translations(40, seed=9)
        )
        (inputs / "prompts.jsonl").write_text(prompts, encoding="utf-8")
    return {
        "name": "backwards",
        "task": "seq2seq",
        "teacher": {
            "model": str(inputs / "teacher"), "dtype": "float32",
            "finetune": {"epochs": 12, "learning_rate": 3e-3, "batch_size": 16},
        },
        "student": {"from_teacher": {"layers": 2, "rows": 8}},
        "data": {"train": {"source": str(inputs / "rows.jsonl")}, "split": 40, "max_length": 16},
        "label": {"top_k": 16, "batch_size": 16},
        "train": {"steps": 60, "batch_size": 8, "learning_rate": 2e-3, "precision": "float32"},
        "evaluate": {
            "resamples": 200, "speed": False, "answers": {"max_new_tokens": 8, "rows": 8}, "perturb": ["typos"],
        },
        "report": {"samples": 2},
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """The recipe, run whole by the command line."""
    inputs = tmp_path_factory.mktemp("seq2seq")
    (inputs / "my.yaml").write_text(yaml.safe_dump(recipe(inputs)), encoding="utf-8")
    with hurried():
        said = stillhouse("run", inputs / "my.yaml", "--folder", inputs / "run", "--format", "json")
    assert said.code == 0, said.err
    return inputs / "run", said


def test_an_encoder_decoder_is_distilled_from_rows_to_report(done: tuple[Path, Said]) -> None:
    folder, _ = done
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (found["task"], found["metric"]) == ("seq2seq", "bits_per_byte")
    assert set(found["controls"]) == {"initial", "hard_only"}
    bits = {
        name: found[name]["metrics"]["eval"]["bits_per_byte"]["value"] for name in ("teacher", "student")
    } | {name: one["metrics"]["eval"]["bits_per_byte"]["value"] for name, one in found["controls"].items()}
    floor = found["floor"]["metrics"]["eval"]["bits_per_byte"]["value"]
    assert bits["teacher"] < 0.8 * floor, "the teacher learned the task, its end included"
    assert bits["student"] < bits["initial"]
    assert found["student"]["parameters"] < found["teacher"]["parameters"]
    for name in ("teacher", "student"):
        assert {"chrf", "exact_match", "teacher_kl"} <= set(found[name]["metrics"]["eval"])
    assert (folder / "report.html").stat().st_size > 10_000


def test_the_answers_are_targets_of_whole_sources(done: tuple[Path, Said]) -> None:
    folder, _ = done
    answers = read_jsonl(folder / "evaluate" / "answers-teacher.jsonl")
    assert len(answers) == 8
    for one in answers:
        assert one["reference"].split() == one["prompt"].split()[::-1]
        assert len(one["answer"].split()) <= 8


def test_what_a_run_keeps_of_its_answers_says_what_its_results_say(done: tuple[Path, Said]) -> None:
    """Two runs are compared by it; that of a run with itself is nothing."""
    folder, _ = done
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for name, model in (("teacher", found["teacher"]), ("student", found["student"])):
        kept = read_answered(folder, name)
        assert kept is not None and len(kept.index.rows) == 8
        for metric in ("chrf", "exact_match", "token_f1"):
            assert evaluate(ANSWER_METRICS[metric], kept.rows) == model["metrics"]["eval"][metric]["value"]
    again = folder.parent / "again"
    shutil.copytree(folder, again)
    gap = compare([folder, again], resamples=200)["differences"][0]["sets"]["eval"]
    assert (gap["chrf"]["value"], gap["chrf"]["p"]) == (0.0, 1.0)


def test_the_student_is_an_ordinary_model_without_us(done: tuple[Path, Said]) -> None:
    folder, _ = done
    words = [sys.executable, "-c", ALONE, str(folder / "student")]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == ["T5ForConditionalGeneration", "2", "2", "1"]
    card = (folder / "student" / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForSeq2SeqLM" in card


def test_a_student_learns_the_targets_that_its_teacher_writes(
    done: tuple[Path, Said], tmp_path: Path
) -> None:
    """Sequence-level distillation: prompts without targets, the teacher's greedy ones in their place."""
    teacher = done[0] / "teacher" / "model"
    values = recipe(
        tmp_path,
        teacher={"model": str(teacher), "dtype": "float32"},
        objective=[{"kind": "hard", "weight": 1.0}],
    )
    values["data"] |= {
        "unlabelled": {"source": str(tmp_path / "prompts.jsonl")},
        "generate": [{"kind": "answers", "max_new_tokens": 12}],
    }
    values["train"] |= {"steps": 4}
    values["evaluate"] = {"rows": 8, "resamples": 200, "speed": False}
    with hurried():
        found = run(parse_recipe(values), tmp_path / "run")
    assert found["task"] == "seq2seq"
    task = make_task("seq2seq", load_tokenizer(teacher), 16)
    model = task.load(teacher)
    sources = {tuple(task.tokenizer(row["prompt"])["input_ids"]) for row in tiny.translations(40, seed=9)}
    examples = read_examples(tmp_path / "run" / "prepare" / "train.parquet")
    written = [one for one in examples if tuple(one.asked) in sources]
    assert len(written) > 10
    said = greedy(model, task, [one.asked for one in written], 12)
    same = [one.input_ids[len(one.asked) :] == own for one, own in zip(written, said, strict=True)]
    assert sum(same) >= 0.9 * len(same), "a writer may compute in bfloat16, where near ties fall otherwise"


# ── what cannot be done yet ─────────────────────────────────────────────────────────────────────────────────────────

ANSWERS = {"kind": "answers"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"rollouts": {"share": 0.5}}, "rollouts: nobody has labelled what the student writes"),
    ({"objective": [{"kind": "hidden", "weight": 1.0}]}, "objective: hidden compares layers.*set label.online: true"),
    ({"objective": [{"kind": "policy_gradient", "weight": 1.0}]}, "objective: policy_gradient learns from what the student writes"),
    ({"objective": [{"kind": "cross_tokenizer", "weight": 1.0}], "label": {"online": True}}, "objective: cross_tokenizer"),
    ({"teacher.context": "Translate."}, "teacher.context: not for"),
    ({"teacher.panel": [{"model": "a"}, {"model": "b"}]}, "teacher.panel: not for"),
    ({"teacher.zero_shot": {"labels": ["a", "b"]}}, "teacher.zero_shot: only for"),
    ({"student": {"from_config": {"config": {"d_ff": 8}, "layers": "teacher"}}}, "student.from_config.layers"),
    ({"data.train.format": "messages"}, "data.train.format: messages"),
    ({"data.train.sentences": True}, "data.train.sentences"),
    ({"data.unlabelled": {"source": "more.jsonl"}}, "data.unlabelled: nobody answers"),
    ({"data.augment": {}}, "data.augment"),
    ({"data.generate": [{"kind": "paraphrase"}]}, "data.generate: paraphrase is asked for in words"),
    ({"data.generate": [{**ANSWERS, "temperature": 0.7}]}, "set temperature: 0"),
    ({"data.generate": [ANSWERS]}, "before teacher.finetune has trained it"),
    ({"data.writer": {"model": "x"}}, "data.writer: an encoder–decoder"),
    ({"data.judge": {"model": "x"}}, "data.judge: scores answers"),
    ({"evaluate.harness": {"tasks": ["hellaswag"]}}, "evaluate.harness: its tasks"),
    ({"evaluate.memorisation": {}}, "evaluate.memorisation"),
    ({"evaluate.perturb": ["paraphrase"]}, "evaluate.perturb: paraphrase"),
    ({"evaluate.baselines": ["majority"]}, "evaluate.baselines: majority"),
    ({"evaluate.judge": {"api": {"model": "m", "base_url": "http://localhost:1"}}}, "evaluate.judge: compares answers"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_an_encoder_decoder_cannot_do_yet_is_refused_in_a_sentence(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    values = recipe(tmp_path)
    for name, value in changes.items():
        place = values
        *above, last = name.split(".")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    with pytest.raises(RecipeError, match=said):
        parse_recipe(values)


def test_reasons_own_targets_and_the_own_last_layer_are_learned_from_rows_to_report(tmp_path: Path) -> None:
    values = recipe(
        tmp_path,
        teacher={"model": str(tmp_path / "teacher"), "dtype": "float32"},
        student={"from_teacher": {"layers": 2, "decoder_layers": 2}},
        objective=[
            {"kind": "hard", "weight": 0.2}, {"kind": "reverse_kl"}, {"kind": "policy_gradient", "weight": 0.1},
            {"kind": "deeper_layers", "weight": 0.1},
        ],
        label={"online": True},
        rollouts={"share": 0.5, "max_new_tokens": 8},
        evaluate={"resamples": 200, "speed": False, "rows": 8, "hard_only": False},
        report={"samples": 0},
    )  # fmt: skip
    rows = [{**row, "rationale": "the old house"} for row in tiny.translations(240)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values["train"] |= {"steps": 12, "log_every": 1, "rationale_weight": 0.5}
    with hurried():
        said = stillhouse("run", write_recipe(tmp_path / "my.yaml", values), "--folder", tmp_path / "run")
    assert said.code == 0, said.err
    examples = read_examples(tmp_path / "run" / "prepare" / "train.parquet")
    assert {len(one.reasons) for one in examples} == {3}
    logs = read_jsonl(tmp_path / "run" / "train" / "metrics.jsonl")
    mine = [row for row in logs if "deeper_layers" in row]
    assert len(mine) == 12 and all(row["deeper_layers"] > 0 for row in mine)
    written = [row["hard"] == 0.0 and row["policy_gradient"] != 0.0 for row in mine]
    assert 0 < sum(written) < 12, "each step is one batch: the student's, or the data's"


def test_layers_of_both_stacks_are_compared_from_rows_to_report(tmp_path: Path) -> None:
    values = recipe(
        tmp_path,
        teacher={"model": str(tmp_path / "teacher"), "dtype": "float32"},
        student={"from_teacher": {"layers": 2, "decoder_layers": 1, "hidden_size": 16, "rows": 8}},
        objective=[{"kind": "forward_kl"}, {"kind": "hidden"}, {"kind": "attention"}, {"kind": "relations"}],
        evaluate={"resamples": 200, "speed": False, "rows": 8, "hard_only": False},
        report={"samples": 0},
    )
    values["label"] = {"online": True}
    values["train"] |= {"steps": 12, "log_every": 1}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with hurried():
        said = stillhouse("run", tmp_path / "my.yaml", "--folder", tmp_path / "run")
    assert said.code == 0, said.err
    config = read_json(tmp_path / "run" / "student" / "config.json")
    assert (config["num_layers"], config["num_decoder_layers"], config["d_model"]) == (2, 1, 16)
    logs = read_jsonl(tmp_path / "run" / "train" / "metrics.jsonl")
    for term in ("forward_kl", "hidden", "attention", "relations"):
        found = [row[term] for row in logs if term in row]
        assert found and found[-1] > 0, term
    hidden = [row["hidden"] for row in logs if "hidden" in row]
    assert hidden[-1] < hidden[0]
    assert not list((tmp_path / "run" / "student").glob("projectors*"))
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "relations" in report and len(report) > 10_000


def test_an_assistant_of_an_encoder_decoder_teaches_the_next_one(tmp_path: Path) -> None:
    values = recipe(
        tmp_path, plan={"kind": "assistants", "sizes": 1}, student={"from_teacher": {"layers": 1, "by": "every_nth"}},
        teacher={"model": str(tmp_path / "teacher"), "dtype": "float32"}, report={"samples": 0},
        evaluate={"resamples": 200, "speed": False, "rows": 8, "hard_only": False},
    )  # fmt: skip
    values["train"]["steps"] = 4
    with hurried():
        said = stillhouse("run", write_recipe(tmp_path / "r.yaml", values), "--folder", tmp_path / "plan")
    assert said.code == 0, said.err
    found = read_json(tmp_path / "plan" / "results.json")
    assert [row["name"] for row in found["runs"]] == ["assistant-1", "student", "direct"]
    layers = [
        read_json(tmp_path / "plan" / "runs" / row["name"] / "student" / "config.json")
        for row in found["runs"]
    ]
    assert [(one["num_layers"], one["num_decoder_layers"]) for one in layers] == [(2, 2), (1, 1), (1, 1)]


def test_sources_that_are_learned_already_are_not_chosen_in_rounds(tmp_path: Path) -> None:
    plan = {
        "kind": "rounds",
        "pool": {"source": "pool.jsonl"},
        "answers": {"temperature": 0},
        "by": "uncertainty",
    }
    values = recipe(tmp_path, plan=plan)
    del values["teacher"]["finetune"]
    task = make_task("seq2seq", tiny.translator_tokenizer(), 16)
    rows: list[Any] = [{"id": str(at), "where": "", **row} for at, row in enumerate(tiny.translations(8))]
    known, _ = task.encode(rows[:5])
    found = readable(parse_recipe(values), rows, task, known)
    there = {row["prompt"] for row in rows[:5]}
    assert [fresh.row["prompt"] for fresh in found.values()] == [
        row["prompt"] for row in rows if row["prompt"] not in there
    ]
    assert all(fresh.written == {"prompt": fresh.row["prompt"]} for fresh in found.values())


@pytest.mark.parametrize(
    ("task", "model", "said"),
    [
        ("seq2seq", "language", "is a LlamaForCausalLM, which writes no target from a source"),
        ("causal_lm", "translator", "is an encoder–decoder; set task: seq2seq"),
    ],
)
def test_validate_tells_encoder_decoders_from_causal_models(
    task: str, model: str, said: str, tmp_path: Path
) -> None:
    tiny.save_translator(tmp_path / "translator")
    tiny.save_language_model(tmp_path / "language")
    values = recipe(tmp_path, task=task, teacher={"model": str(tmp_path / model)})
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    found = stillhouse("validate", tmp_path / "my.yaml")
    assert (found.code, said in found.err.replace("\n", " ")) == (2, True), found.err


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("prophetnet", "foretells several tokens at each place"),
        ("mbart", "begins a target with the token of"),
    ],
)
def test_validate_refuses_families_whose_targets_are_not_learned(
    family: str, said: str, tmp_path: Path
) -> None:
    values = recipe(tmp_path)
    path = tmp_path / "translator" / "config.json"
    tiny.save_translator(tmp_path / "translator")
    path.write_text(json.dumps({**read_json(path), "model_type": family}), encoding="utf-8")
    values["teacher"] = {"model": str(tmp_path / "translator")}
    with pytest.raises(RecipeError, match=f"^teacher.model: .* {said}"):
        static_checks(parse_recipe(values), tmp_path)


def test_validate_asks_for_a_source_and_a_target(tmp_path: Path) -> None:
    values = recipe(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"text": "a book"}\n', encoding="utf-8")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    found = stillhouse("validate", tmp_path / "my.yaml")
    assert found.code == 3
    assert "do not look like source and target" in found.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("lengths", "named"),
    [
        ((65, 64, 64, 64), "data.max_length"),
        ((64, 65, 64, 64), "evaluate.answers.max_new_tokens"),
        ((64, 64, 65, 64), "data.generate: answers.max_new_tokens"),
        ((64, 64, 64, 65), "rollouts.max_new_tokens"),
        ((64, 64, 64, 64), None),
    ],
)
def test_validate_counts_the_positions_that_a_family_has(
    lengths: tuple[int, int, int, int], named: str | None, tmp_path: Path
) -> None:
    values = recipe(tmp_path)
    tiny.save_translator(tmp_path / "bart", "bart")
    values["teacher"] = {"model": str(tmp_path / "bart"), "dtype": "float32"}
    values["data"] |= {
        "max_length": lengths[0],
        "generate": [{"kind": "answers", "max_new_tokens": lengths[2]}],
    }
    values["evaluate"]["answers"] = {"max_new_tokens": lengths[1]}
    values |= {"label": {"online": True}, "rollouts": {"max_new_tokens": lengths[3]}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    found = stillhouse("validate", tmp_path / "my.yaml")
    said = " ".join(found.err.split())
    if named is None:
        assert found.code == 0, said
    else:
        assert (found.code, f"{named}: teacher.model reads 64 tokens at most, not 65" in said) == (2, True), (
            said
        )


def test_validate_refuses_a_student_with_other_tokens(tmp_path: Path) -> None:
    values = recipe(tmp_path)
    tiny.save_translator(tmp_path / "student")
    tiny.language_tokenizer().save_pretrained(tmp_path / "student")
    values["student"] = {"model": str(tmp_path / "student")}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    found = stillhouse("validate", tmp_path / "my.yaml")
    assert (found.code, "encoder–decoders must share one" in found.err.replace("\n", " ")) == (2, True)
