"""Whole runs whose teacher labels by the names of the labels: nobody else labels anything that is learned from."""

import csv
import html
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from stillhouse import Distiller, run
from stillhouse import objectives as kd
from stillhouse.data.encode import Example, read_examples
from stillhouse.errors import DataError, RecipeError
from stillhouse.files import read_json, write_json
from stillhouse.models.load import load_tokenizer
from stillhouse.pipeline import run_pipeline
from stillhouse.progress import Silent
from stillhouse.recipe import ZeroShot as ZeroShotSettings
from stillhouse.recipe import parse_recipe
from stillhouse.stages import STAGES
from stillhouse.static import static_checks
from stillhouse.steps import evaluating, plan
from stillhouse.steps.naming import keep_texts, ways_of
from stillhouse.tasks import make_task
from stillhouse.tasks.zero_shot import CONTENT_FREE, ZeroShot
from stillhouse.teachers.cache import SoftTargetCache
from typed import hurried

PROMPT = "{text}\nOne of {labels}:"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that has read what such texts are called, a classifier's tokenizer, and rows."""
    place = tmp_path_factory.mktemp("made")
    tiny.save_language_model(place / "lm", layers=2, pad_to=400)
    tiny.save_classifier(place / "base")
    tiny.labelled_file(place / "rows.csv", rows=60)
    tiny.labelled_file(place / "read.csv", rows=120, seed=6)
    tokenizer = load_tokenizer(place / "lm")
    model = AutoModelForCausalLM.from_pretrained(place / "lm")
    asked = ZeroShot(model, tokenizer, ["terrible", "lovely"], prompt=PROMPT)
    word = {"bad": "terrible", "good": "lovely"}
    rows = list(csv.DictReader((place / "read.csv").open()))
    texts = [
        {
            "messages": [
                {"role": "user", "content": asked._ask(row["text"])},
                {"role": "assistant", "content": word[row["label"]]},
            ]
        }
        for row in rows
    ]
    Distiller(
        model=model, objective=[kd.hard()], args=tiny.arguments(place / "x", max_steps=60, learning_rate=5e-3),
        train_dataset=texts, processing_class=tokenizer,
    ).train()  # fmt: skip
    model.save_pretrained(place / "lm")
    (place / "prompt.txt").write_text(PROMPT)
    bare = [
        {"text": f"{text[:-1]} {w} {w}."}
        for n, text in enumerate(tiny.sentences(90, seed=8))
        for w in [("bad", "good")[n % 2]]
    ]
    (place / "bare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    return place


class Noted(Silent):
    """Remembers what a person is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def values(made: Path, **zero_shot: Any) -> dict[str, Any]:
    return {
        "name": "names", "task": "classification",
        "teacher": {
            "model": str(made / "lm"), "dtype": "float32",
            "zero_shot": {"labels": {"bad": "terrible", "good": "lovely"}, "prompt": str(made / "prompt.txt"), "form": "chat", "calibrate": "none", **zero_shot},
        },
        "student": {"tokenizer": str(made / "base"), "from_config": {"config": {"num_hidden_layers": 1}}},
        "data": {"train": {"source": str(made / "bare.jsonl")}, "eval": {"source": str(made / "rows.csv")}, "max_length": 32},
        "objective": [{"kind": "forward_kl"}],
        "train": {"steps": 50, "batch_size": 16, "learning_rate": 5e-3, "precision": "float32"},
        "evaluate": {"resamples": 200, "speed": False}, "report": {"samples": 2},
    }  # fmt: skip


def finish(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir()
    write_json(folder / "machine.json", {"bfloat16": False})
    with hurried():
        return run(parse_recipe(recipe), folder)


def test_a_student_learns_from_names_alone(made: Path, tmp_path: Path) -> None:
    """Text without a label, its names' probabilities as soft targets, and held-out labels that only the evaluation sees."""
    found = finish(values(made), tmp_path / "run")
    examples = read_examples(tmp_path / "run" / "prepare" / "train.parquet")
    assert len(examples) == 90 and all(example.labels == [-100] for example in examples)
    label = read_json(tmp_path / "run" / "label" / "DONE.json")["result"]
    cache = SoftTargetCache(tmp_path / "run" / label["cache"], label["meta"])
    model = AutoModelForCausalLM.from_pretrained(made / "lm").double()
    asked = ZeroShot(model, load_tokenizer(made / "lm"), ["terrible", "lovely"], prompt=PROMPT)
    texts = {
        row["key"]: row["text"] for row in map(json.loads, (tmp_path / "run/prepare/texts.jsonl").open())
    }
    for example in examples[:3]:
        kept = cache.get(example.key)
        wanted = asked.log_probs([texts[example.key]])[0]
        assert -5.0 < float(wanted.max()) < -1e-4, "no hard label in disguise"
        torch.testing.assert_close(
            kept.log_p[0][kept.ids[0].argsort()].double(), wanted, atol=2e-3, rtol=2e-3
        )
    teacher, student = (found[who]["metrics"]["eval"]["accuracy"] for who in ("teacher", "student"))
    floor = found["floor"]["metrics"]["eval"]["accuracy"]["value"]
    assert teacher["low"] > floor and student["low"] > floor
    assert found["retention"]["low"] is not None and found["retention"]["value"] > 0.5
    assert set(found["controls"]) == {"initial"}, "there is nothing to train a control on"
    assert found["samples"][0]["teacher"]


def test_how_the_teacher_was_asked_stands_in_the_report_and_in_the_card(made: Path, tmp_path: Path) -> None:
    recipe = values(made, form=None, calibrate="texts")
    recipe["train"]["steps"] = 2
    finish(recipe, tmp_path / "run")
    for page in ("report.html", "student/README.md"):
        said = html.unescape((tmp_path / "run" / page).read_text())
        assert "The teacher was asked as a chat turn" in said and "evened out by 90 training texts" in said


def test_shown_examples_are_labelled_rows_one_label_after_the_other(made: Path, tmp_path: Path) -> None:
    recipe = values(made, examples=3, calibrate="content_free")
    recipe["data"] = {"train": {"source": str(made / "rows.csv")}, "split": 20, "max_length": 32}
    folder = tmp_path / "run"
    folder.mkdir()
    write_json(folder / "machine.json", {"bfloat16": False})
    with hurried():
        run_pipeline(parse_recipe(recipe), STAGES, folder, Silent(), until="teacher")
    kept = read_json(folder / "teacher" / "zero_shot" / "zero_shot.json")
    assert [row["label"] for row in kept["examples"]] == ["terrible", "lovely", "terrible"]
    known = {row["text"]: row["label"] for row in csv.DictReader((made / "rows.csv").open())}
    assert all(
        {"bad": "terrible", "good": "lovely"}[known[row["text"]]] == row["label"] for row in kept["examples"]
    )
    task = make_task("classification", load_tokenizer(folder / "teacher" / "zero_shot"), 32, ["bad", "good"])
    teacher = task.load(folder / "teacher" / "zero_shot")
    examples = read_examples(folder / "prepare" / "train.parquet")[:5]
    with torch.inference_mode():
        said = task.scores(teacher, task.collate(examples)).hidden
        again = task.scores(teacher, task.collate(examples[::-1])).hidden.flip(0)
    torch.testing.assert_close(said, again, atol=1e-5, rtol=1e-5)
    free = teacher._raw(["N/A", "", "[MASK]"], 3).softmax(-1).mean(0).log()
    wanted = (teacher._raw([teacher.texts[one.key] for one in examples], 5) - free).log_softmax(-1)
    torch.testing.assert_close(said.double(), wanted, atol=1e-5, rtol=1e-5)


def test_the_prompt_that_tells_texts_apart_is_chosen_and_evened_out_without_a_label(
    made: Path, tmp_path: Path
) -> None:
    """Of two prompts in two forms, the model was taught one in one."""
    (made / "other.txt").write_text("{text}, said the {labels}")
    recipe = values(
        made, prompt=[str(made / "other.txt"), str(made / "prompt.txt")], form=None, calibrate="texts"
    )
    folder, seen = tmp_path / "run", Noted()
    folder.mkdir()
    write_json(folder / "machine.json", {"bfloat16": False})
    with hurried():
        run_pipeline(parse_recipe(recipe), STAGES, folder, seen, until="teacher")
    kept = read_json(folder / "teacher" / "zero_shot" / "zero_shot.json")
    assert (kept["prompt"], kept["form"]) == (PROMPT, "chat")
    said = [note for note in seen.notes if "asked as a chat turn, prompt.txt (" in note]
    assert len(said) == 1 and said[0].count("nats of information about the texts") == 4
    assert "evened out by 90 training texts" in said[0]
    assert "plain text, other.txt (" in said[0] and "told them apart no better" in said[0]
    task = make_task("classification", load_tokenizer(folder / "teacher" / "zero_shot"), 32, ["bad", "good"])
    trained = {example.key for example in read_examples(folder / "prepare" / "train.parquet")}
    rows = map(json.loads, (folder / "prepare" / "texts.jsonl").open())
    texts = [row["text"] for row in rows if row["key"] in trained]
    asked = task.load(folder / "teacher" / "zero_shot")
    mean = torch.tensor(kept["prior"]["text"], dtype=torch.float64)
    assert float(mean.exp().sum()) == pytest.approx(1.0)
    asked.prior = {}
    torch.testing.assert_close(asked.log_probs(texts).exp().mean(0).log(), mean, atol=1e-5, rtol=1e-5)


def until_teacher(recipe: dict[str, Any], folder: Path, bfloat16: bool = False) -> tuple[dict[str, Any], str]:
    """(what the teacher stage wrote, what it said of how it asks)."""
    seen = Noted()
    folder.mkdir()
    write_json(folder / "machine.json", {"bfloat16": bfloat16})
    with hurried():
        run_pipeline(parse_recipe(recipe), STAGES, folder, seen, until="teacher")
    said = [note for note in seen.notes if "The teacher was asked as" in note]
    return read_json(folder / "teacher" / "zero_shot" / "zero_shot.json"), "".join(said)


def test_kinds_of_text_of_which_few_were_looked_at_are_evened_out_by_texts_without_content(
    made: Path, tmp_path: Path
) -> None:
    """Of 40 training rows 3 are pairs, and of the held-out ones some: none is refused, and no prior is three rows' own answer."""
    rows = list(csv.DictReader((made / "rows.csv").open()))
    train = [{"text": row["text"]} for row in rows[:40]]
    for row in train[:3]:
        row["pair"] = "the river reads."
    held = [{**row, **({"pair": "a book."} if n % 2 else {})} for n, row in enumerate(rows[40:])]
    for name, some in (("train", train), ("eval", held)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    recipe = values(made, calibrate="texts", prompt=[])
    recipe["data"] = {name: {"source": str(tmp_path / f"{name}.jsonl")} for name in ("train", "eval")}
    kept, said = until_teacher(recipe, tmp_path / "run")
    assert "chat turn, Stillhouse's own prompt (" in said
    assert (
        "evened out by 37 training texts and texts without content, for fewer than 16 of the training rows"
        in said
    )
    assert said.rstrip(".").endswith("are pairs")
    model = AutoModelForCausalLM.from_pretrained(made / "lm")
    asked = ZeroShot(model, load_tokenizer(made / "lm"), ["terrible", "lovely"])
    free = asked.log_probs([(text, text) for text in CONTENT_FREE]).exp().mean(0).log()
    alone = asked.log_probs([row["text"] for row in train[3:]]).exp().mean(0).log()
    for kind, wanted in {"pair": free, "text": alone}.items():
        found = torch.tensor(kept["prior"][kind], dtype=torch.float64)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_very_few_texts_do_not_even_out_their_own_labels(made: Path, tmp_path: Path) -> None:
    lines = (made / "bare.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "few.jsonl").write_text("".join(lines[:2]))
    recipe = values(made, calibrate="texts")
    recipe["data"]["train"] = {"source": str(tmp_path / "few.jsonl")}
    kept, said = until_teacher(recipe, tmp_path / "run")
    free, _ = until_teacher(
        {**recipe, **{"teacher": values(made, calibrate="content_free")["teacher"]}}, tmp_path / "free"
    )
    assert "evened out by texts without content, for fewer than 16" in said
    assert kept["prior"] == free["prior"]


def test_a_way_of_asking_is_chosen_in_the_precision_that_the_recipe_names(made: Path, tmp_path: Path) -> None:
    """The machine would take bfloat16, and the recipe says float32."""
    wanted, _ = until_teacher(values(made, calibrate="texts"), tmp_path / "plain")
    found, _ = until_teacher(values(made, calibrate="texts"), tmp_path / "asked", bfloat16=True)
    assert found["prior"] == wanted["prior"]
    left = values(made, calibrate="texts")
    left["teacher"]["dtype"] = "auto"
    less, _ = until_teacher(left, tmp_path / "auto", bfloat16=True)
    assert less["prior"] != wanted["prior"]


def test_a_model_without_a_chat_template_is_not_asked_to_chat(made: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(made / "lm")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "bare")
    bare = {"folder": str(tmp_path / "bare"), "name": "bare", "prompts": []}
    with pytest.raises(RecipeError, match=r"zero_shot.form: bare has no chat template; use plain\.$"):
        ways_of(ZeroShotSettings(form="chat"), bare)
    assert [one["way"]["form"] for one in ways_of(ZeroShotSettings(), bare)] == ["plain"]


def test_the_time_of_choosing_a_way_is_that_of_the_texts_read_in_each(made: Path) -> None:
    model = {"folder": str(made / "lm"), "name": "lm", "prompts": []}
    long = [Example(str(n), str(n), [5] * (30 if n < 128 else 10), [-100], [0], 1) for n in range(256)]
    speed = {"teacher_label": 1e-3}
    one = ZeroShotSettings(form="chat", calibrate="none")
    assert plan._choosing(one, model, long, speed) == 0.0
    both = one.model_copy(update={"form": None})
    assert plan._choosing(both, model, long, speed) == pytest.approx(evaluating.LOADING + 2 * 128 * 20 * 1e-3)
    evened = one.model_copy(update={"calibrate": "texts"})
    assert plan._choosing(evened, model, long[:4], speed) == pytest.approx(evaluating.LOADING + 4 * 30 * 1e-3)


def test_more_examples_than_labelled_rows_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"zero_shot.examples: 4 are asked for, and data.train has 0 labelled rows"
    ):
        finish(values(made, examples=4), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"task": "causal_lm"}, "only for task: classification"),
        ({"student": {"from_teacher": {"layers": 1}}}, "use student.model, or from_config with student.tokenizer"),
        ({"student": {"from_config": {"config": {"num_hidden_layers": 1}}}}, "student.tokenizer: the teacher's language model lends none"),
        ({"objective": [{"kind": "hard"}]}, "add {kind: forward_kl}"),
        ({"objective": [{"kind": "hidden"}], "label": {"online": True}}, "compares layers"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_it_is_named(made: Path, changes: dict[str, Any], remedy: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe({**values(made), **changes})
    assert remedy in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("zero_shot", "remedy"),
    [
        ({"labels": ["good"]}, "needs at least two"),
        ({"labels": {"a": "good", "b": "Good"}}, "same word"),
        ({"prompt": "nowhere.txt"}, "zero_shot.prompt: nowhere.txt does not exist"),
    ],
)
def test_wrong_names_and_prompts_are_said_before_anything_is_loaded(
    made: Path, tmp_path: Path, zero_shot: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(RecipeError, match=remedy):
        static_checks(parse_recipe(values(made, **zero_shot)), tmp_path / "run")


def test_a_classifier_is_no_language_model(made: Path, tmp_path: Path) -> None:
    recipe = values(made)
    recipe["teacher"]["model"] = str(made / "base")
    with pytest.raises(RecipeError, match="which says no words"):
        static_checks(parse_recipe(recipe), tmp_path / "run")


def test_a_prompt_that_would_drop_the_second_text_is_refused(made: Path, tmp_path: Path) -> None:
    rows = [{"text": f"one {n}", "pair": f"another {n}", "label": ["bad", "good"][n % 2]} for n in range(20)]
    for name in ("single.jsonl", "paired.jsonl"):
        kept = [{key: row[key] for key in ("text", "label")} if "single" in name else row for row in rows]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in kept))
    recipe = values(made)

    def checked(source: str) -> None:
        recipe["data"]["train"] = {"source": str(tmp_path / source)}
        static_checks(parse_recipe(recipe), tmp_path / "run")

    checked("single.jsonl")
    with pytest.raises(RecipeError, match=r"prompt.txt: has no \{pair\}"):
        checked("paired.jsonl")
    pairs = [({"id": "0", **rows[0]}, Example("0", "0", [1], [-100], [0], 0))]
    keep_texts(tmp_path / "texts.jsonl", pairs, [{"name": "both", "text": "{text} and {pair}"}])
    with pytest.raises(RecipeError, match=r"one: has no \{pair\}"):
        keep_texts(tmp_path / "texts.jsonl", pairs, [{"name": "one", "text": "{text}"}])
