"""Whole runs whose teacher is behind an API: no weights of it are here, and the report says what that costs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from endpoint import Endpoint, Said, Weather, prompt_of
from partly import SILENT_PLAN
from stillhouse import run
from stillhouse.files import read_json, read_jsonl, write_json
from stillhouse.pipeline import run_pipeline
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from typed import hurried

STORM = Weather(seed=3, throttled=0.1, broken=0.05, garbage=0.03, dropped=0.02, empty=0.01, retry_after=0.05)


def opinion(body: dict[str, Any]) -> Said:
    """Says which of two words the text ends with; nine times in ten sure of it."""
    text = prompt_of(body).rpartition("Text: ")[2]
    good = text.rfind("good") > text.rfind("bad")
    word, other = ("Good", "Bad") if good else ("Bad", "Good")
    return word, [(word, {word: math.log(0.9), other: math.log(0.08), "The": math.log(0.01)})]


def classifying(place: Path, url: str, **api: Any) -> dict[str, Any]:
    """Plain values of a recipe with half of its rows labelled."""
    tiny.save_classifier(place / "base")
    tiny.labelled_file(place / "rows.csv", rows=90)
    return {
        "name": "box", "task": "classification",
        "teacher": {"api": {"base_url": url, "model": "big", **api}},
        "student": {"tokenizer": str(place / "base"), "from_config": {"config": {"num_hidden_layers": 1}}},
        "data": {"train": {"source": str(place / "rows.csv")}, "split": 30, "max_length": 32},
        "objective": [{"kind": "forward_kl", "temperature": 2.0}],
        "train": {"steps": 60, "batch_size": 16, "learning_rate": 5e-3, "precision": "float32"},
        "evaluate": {"resamples": 200}, "report": {"samples": 2},
    }  # fmt: skip


def finish(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir()
    write_json(folder / "machine.json", {"bfloat16": False})  # measuring it takes long where it does not pay
    with hurried():
        return run(parse_recipe(values), folder)


def test_a_classifier_learns_from_named_labels(tmp_path: Path) -> None:
    with Endpoint(opinion, STORM) as endpoint:
        found = finish(classifying(tmp_path, endpoint.url, timeout=5.0), tmp_path / "run")
    assert set(endpoint.seen.delivered.values()) == {1}, "every row is asked about once, held-out ones too"
    assert len(endpoint.seen.delivered) == 90
    assert found["teacher"]["metrics"]["eval"]["accuracy"]["value"] == 1.0
    assert found["student"]["metrics"]["eval"]["accuracy"]["value"] > 0.8
    assert found["retention"]["value"] is not None
    assert found["controls"]["hard_only"]["metrics"]["eval"]["accuracy"]["value"] > 0.5
    for model in (found["teacher"], found["student"], *found["controls"].values()):
        assert "teacher_kl" not in model["metrics"]["eval"], "a name is no distribution"
    assert "ece" not in found["teacher"]["metrics"]["eval"]
    assert "parameters" not in found["teacher"]
    assert "behind an API" in (tmp_path / "run" / "report.html").read_text()


def test_probabilities_reach_the_student_and_the_report(tmp_path: Path) -> None:
    with Endpoint(opinion) as endpoint:
        found = finish(classifying(tmp_path, endpoint.url, top_logprobs=5), tmp_path / "run")
    assert found["teacher"]["metrics"]["eval"]["ece"]["value"] == pytest.approx(1 - 0.9 / 0.98, abs=1e-3)
    assert found["student"]["metrics"]["eval"]["teacher_kl"]["value"] > 0


def test_rows_that_nobody_labelled_are_enough(tmp_path: Path) -> None:
    with Endpoint(opinion) as endpoint:
        values = classifying(tmp_path, endpoint.url, labels={"bad": "Bad", "good": "Good"})
        rows = [
            {"text": f"{text} {'good' if n % 2 else 'bad'}"}
            for n, text in enumerate(tiny.sentences(60, seed=8))
        ]
        (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        values["data"] = {
            "train": {"source": str(tmp_path / "more.jsonl")},
            "eval": {"source": str(tmp_path / "rows.csv")},
        }
        # ids of rows hold the file's path, so each run here has another order: enough steps for all of them
        values["train"] |= {"steps": 90}
        found = finish(values, tmp_path / "run")
    assert found["gains"] is None, "there is nothing to train a control on"
    assert set(found["controls"]) == {"initial"}
    assert found["student"]["metrics"]["eval"]["accuracy"]["value"] > 0.6


def test_a_language_model_learns_the_teachers_texts(tmp_path: Path) -> None:
    tiny.save_language_model(tmp_path / "base", layers=2)
    rows = [{"prompt": f"{text} Why?"} for text in tiny.sentences(60)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values: dict[str, Any] = {
        "name": "texts", "task": "causal_lm", "student": {"model": str(tmp_path / "base")},
        "data": {
            "train": {"source": str(tmp_path / "prompts.jsonl")}, "split": 12, "max_length": 64, "filter": {"refusals": True},
        },
        "objective": [{"kind": "hard"}], "train": {"steps": 20, "batch_size": 4, "learning_rate": 3e-3, "precision": "float32"},
        "evaluate": {
            "resamples": 200, "baselines": [{"name": "itself", "model": str(tmp_path / "base")}],
            "answers": {"rows": 3, "max_new_tokens": 6},
        },
        "report": {"samples": 1, "prices": {"machine_per_hour": 1.0}},
    }  # fmt: skip

    def answer(body: dict[str, Any]) -> str:
        if prompt_of(body)[0] == "8":
            return "I'm sorry, I can't help"
        return "because the river gives books" + ("<|im_end|>" if prompt_of(body)[0] == "7" else "")

    with Endpoint(answer) as endpoint:
        price = {"input": 1.0, "output": 5.0}
        values["teacher"] = {
            "api": {"base_url": endpoint.url, "model": "big", "max_tokens": 20, "price": price}
        }
        found = finish(values, tmp_path / "run")
    dropped = read_jsonl(tmp_path / "run" / "label" / "dropped.jsonl")
    assert {row["reason"] for row in dropped} == {"control token in the answer", "refusal"}
    assert {row["set"] for row in dropped if row["reason"] == "refusal"} == {"train"}
    assert found["data"]["dropped_answers"]["refusal"] == sum(row["reason"] == "refusal" for row in dropped)
    assert "for the teacher’s answer: refusal" in (tmp_path / "run" / "report.html").read_text()
    assert "Left out for the teacher's answer:" in (tmp_path / "run" / "student" / "README.md").read_text()
    after = found["student"]["metrics"]["eval"]["bits_per_byte"]["value"]
    assert after < found["controls"]["initial"]["metrics"]["eval"]["bits_per_byte"]["value"] - 0.5
    other = found["baselines"]["itself"]["metrics"]["eval"]
    assert "bits_per_byte" in other and "teacher_agreement" not in other, (
        "nobody knows what the teacher would have said next"
    )
    assert found["retention"]["value"] is None
    assert "behind an API" in found["retention"]["note"]
    assert found["samples"][0]["teacher"].startswith("because the river")
    compared = read_jsonl(tmp_path / "run" / "evaluate" / "answers-student.jsonl")
    assert {row["reference"] for row in compared} == {" because the river gives books"}, (
        "where the data has no answers, the teacher's are the references"
    )
    money = found["economics"]
    read = sum(len(prompt_of(body)) // 4 + 4 for body in endpoint.bodies)  # as the endpoint counts
    wrote = sum(len(answer(body).split(" ")) for body in endpoint.bodies)
    assert money["paid"] == {"teacher.api": pytest.approx((read + 5 * wrote) / 1e6)}
    assert money["making"] == pytest.approx(money["machine"] + money["paid"]["teacher.api"])
    assert money["teacher_per_million"] == pytest.approx((read + 5 * wrote) / wrote)


SECRET = "The key to the treasure lies under the third stone left of the old chapel door."
SAID = {
    "ann": "I'm sorry, but I can't help with that question about the river and the mill.",
    "bob": "Because.",
    "cid": "so it was and so it is " * 5,
    "dan": SECRET,
    "zoe": SECRET,
}


def labelled(
    place: Path, answer: Callable[[dict[str, Any]], str], evaluate: dict[str, Any] | None = None, **data: Any
) -> Path:
    """The folder of a run up to the label stage: seven questions to learn from, two to be measured on."""
    tiny.save_language_model(place / "base", layers=1)
    texts = iter(tiny.sentences(9))
    for name, people in (("train", "ann bob cid dan eve fay gus"), ("eval", "zoe yan")):
        rows = [{"prompt": f"{next(texts)} Who is {who}?"} for who in people.split()]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {name: {"source": str(place / f"{name}.jsonl")} for name in ("train", "eval")}
    with Endpoint(answer) as endpoint:
        recipe = parse_recipe({
            "name": "sifted", "task": "causal_lm", "student": {"model": str(place / "base")},
            "teacher": {"api": {"base_url": endpoint.url, "model": "big", "max_tokens": 40}},
            "data": {**files, "max_length": 256, **data}, "objective": [{"kind": "hard"}], "train": {"steps": 1},
            "evaluate": evaluate or {},
        })  # fmt: skip
        (place / "run").mkdir()
        write_json(place / "run" / "machine.json", {"bfloat16": False})
        run_pipeline(recipe, SILENT_PLAN, place / "run", Silent(), until="label")
    return place / "run"


def replies(body: dict[str, Any]) -> str:
    """What SAID has about somebody, or a good answer."""
    name = prompt_of(body).rpartition("Who is ")[2].strip("?")
    return SAID.get(name, f"Somebody called {name} who sells books by the river.")


def test_a_teachers_answers_are_sifted_and_what_is_measured_on_is_not(tmp_path: Path) -> None:
    """One declines, one is short, one goes round in circles, one is what the teacher says to a held-out question."""
    wanted = {"refusals": True, "min_words": 4, "max_repetition": 0.3, "contamination": 40}
    place = labelled(tmp_path, replies, filter=wanted)
    assert not read_jsonl(place / "prepare" / "dropped.jsonl"), "nobody had answered yet"
    dropped = {
        row["prompt"].rpartition("Who is ")[2].strip("?"): row
        for row in read_jsonl(place / "label" / "dropped.jsonl")
    }
    assert {who: row["reason"] for who, row in dropped.items()} == {
        "ann": "refusal", "bob": "shorter than 4 words", "cid": "repetition", "dan": "contains eval",
    }  # fmt: skip
    assert dropped["ann"]["completion"].strip() == SAID["ann"] and dropped["ann"]["set"] == "train"
    found = read_json(place / "label" / "DONE.json")["result"]
    assert found["dropped"]["train"] == dict.fromkeys((row["reason"] for row in dropped.values()), 1)
    assert found["dropped"]["eval"] == {}
    assert found["examples"] == 3 and found["sets"]["eval"]["rows"] == 2


def test_an_answer_that_gives_away_a_document_of_the_harness_is_left_out(tmp_path: Path) -> None:
    task = tmp_path / "treasures.yaml"
    rows = [{"question": "Where does the key to the treasure lie?", "answer": SECRET.upper()}]
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task.write_text(
        f"""task: treasures
dataset_path: json
dataset_kwargs: {{data_files: {tmp_path / "documents.jsonl"}}}
test_split: train
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: exact_match}}]
"""
    )

    def answer(body: dict[str, Any]) -> str:
        return "somebody else" if "zoe" in prompt_of(body) else replies(body)

    place = labelled(tmp_path, answer, {"harness": {"tasks": [str(task)]}}, filter={})
    (lost,) = read_jsonl(place / "label" / "dropped.jsonl")
    assert lost["completion"].strip() == SECRET and lost["reason"] == "contains treasures"


def test_an_answer_that_is_no_json_as_the_schema_has_it_is_left_out(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "required": ["who"]}))

    def answer(body: dict[str, Any]) -> str:
        return json.dumps({"who": "ann"}) if "ann" in prompt_of(body) else json.dumps({"what": 1})

    place = labelled(tmp_path, answer, filter={"json_schema": str(schema), "contamination": None})
    found = read_json(place / "label" / "DONE.json")["result"]
    assert found["dropped"]["train"] == {"format: not as the JSON Schema has it": 6}
    assert found["examples"] == 1
