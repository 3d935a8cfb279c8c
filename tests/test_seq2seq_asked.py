"""Whole runs of encoder–decoders whose teacher is behind an API: its answers to sources are the targets."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from transformers import ByT5Tokenizer

import tiny
from endpoint import Endpoint, Said, prompt_of
from partly import labelled
from stillhouse import run
from stillhouse.data.encode import Example, read_examples
from stillhouse.errors import ResourceError
from stillhouse.files import read_json, read_jsonl, write_json
from stillhouse.models.load import load_tokenizer
from stillhouse.pipeline import run_pipeline
from stillhouse.plans.check import refuse_rounds
from stillhouse.plans.rounds import has_hard_only
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.stages import STAGES
from stillhouse.steps import paces, plan
from stillhouse.steps.hearing import stand_ins
from stillhouse.steps.training import set_aside
from stillhouse.tasks import make_task
from typed import hurried, stillhouse, write_recipe

ASKED = "Write backwards: {text}"
PRICE = {"input": 0.0, "output": 10_000.0}
"""Of a word: a cent."""


def backwards(body: dict[str, Any]) -> str:
    """The words of a source from the last to the first, with space around them as chat models leave it."""
    return f" {' '.join(reversed(prompt_of(body).removeprefix('Write backwards: ').split()))}\n"


def recipe(place: Path, url: str, rows: int = 60, targets: bool = False, **changes: Any) -> dict[str, Any]:
    """Plain values of a run of some seconds: sources, and a T5 that knows nothing.

    Args: targets: whether the data has targets of its own, which are wrong.
    """
    if not (place / "base").exists():
        tiny.save_translator(place / "base", "t5", layers=2)
    lines = [
        {"prompt": f"{row['prompt']} well", **({"completion": "a bad film"} if targets else {})}
        for row in tiny.translations(rows)
    ]
    (place / "sources.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {
        "name": "asked", "task": "seq2seq", "student": {"model": str(place / "base")},
        "teacher": {"api": {"base_url": url, "model": "big", "max_tokens": 20, "prompt": ASKED, "price": PRICE}},
        "data": {"train": {"source": str(place / "sources.jsonl")}, "split": 12, "max_length": 16},
        "objective": [{"kind": "hard"}],
        "train": {"steps": 60, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32"},
        "evaluate": {"resamples": 200, "speed": False, "answers": {"rows": 6, "max_new_tokens": 8}},
        "report": {"samples": 1, "prices": {"machine_per_hour": 1.0}}, **changes,
    }  # fmt: skip


def finish(plain: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    write_json(folder / "machine.json", {"bfloat16": False})
    with hurried():
        return run(parse_recipe(plain), folder)


def texts(folder: Path, examples: list[Example]) -> list[tuple[str, str]]:
    """What the encoder and what the decoder reads, special tokens included."""
    decode = load_tokenizer(folder).decode
    return [
        (decode(one.input_ids[: one.starts[1]]), decode(one.input_ids[one.starts[1] :])) for one in examples
    ]


def test_an_encoder_decoder_learns_an_apis_answers_from_sources_to_report_and_asks_once(
    tmp_path: Path,
) -> None:
    with Endpoint(backwards) as endpoint:
        plain = recipe(tmp_path, endpoint.url)
        found = finish(plain, tmp_path / "run")
        asked = len(endpoint.seen.delivered)
        assert set(endpoint.seen.delivered.values()) == {1}
        assert {body["messages"][-1]["content"][:17] for body in endpoint.bodies} == {"Write backwards: "}
        for name in ("label", "train", "evaluate"):
            (tmp_path / "run" / name / "DONE.json").unlink()
        again = finish({**plain, "train": {**plain["train"], "steps": 2}}, tmp_path / "run")
        assert len(endpoint.seen.delivered) == asked and set(endpoint.seen.delivered.values()) == {1}
    assert again["teacher"]["name"] == "big"
    examples = read_examples(tmp_path / "run" / "label" / "train.parquet")
    assert len(examples) + 12 == asked
    for source, target in texts(tmp_path / "base", examples):
        words = source.removesuffix("</s>").split()
        assert source.endswith("</s>") and target.endswith("</s>")
        assert target.removesuffix("</s>").split() == words[::-1], "the student reads the bare source"
    assert (found["task"], found["metric"]) == ("seq2seq", "bits_per_byte")
    assert found["gains"] is None and set(found["controls"]) == {"initial"}, "nothing to train a control on"
    mine, before = (one["metrics"]["eval"] for one in (found["student"], found["controls"]["initial"]))
    assert mine["bits_per_byte"]["value"] < before["bits_per_byte"]["value"] - 0.2
    assert "chrf" in mine and "exact_match" in mine and "teacher_kl" not in mine
    for one in read_jsonl(tmp_path / "run" / "evaluate" / "answers-student.jsonl"):
        assert one["reference"].split() == one["prompt"].split()[::-1], "answers are compared with the API's"
    assert found["samples"][0]["teacher"].split()[0] == "well"
    words = sum(len(backwards(body).split(" ")) for body in endpoint.bodies)
    assert found["economics"]["paid"] == {"teacher.api": pytest.approx(0.01 * words)}
    assert "behind an API" in (tmp_path / "run" / "report.html").read_text()
    assert "AutoModelForSeq2SeqLM" in (tmp_path / "run" / "student" / "README.md").read_text()


def test_targets_that_the_data_has_are_for_the_control_and_for_measuring(tmp_path: Path) -> None:
    with Endpoint(backwards) as endpoint:
        plain = recipe(tmp_path, endpoint.url, targets=True)
        plain["train"]["steps"] = 30
        found = finish(plain, tmp_path / "run")
    assert set(found["controls"]) == {"initial", "hard_only"}
    bits = {
        name: {kind: of["bits_per_byte"]["value"] for kind, of in one["metrics"].items()}
        for name, one in (("student", found["student"]), ("control", found["controls"]["hard_only"]))
    }
    assert bits["student"]["eval_by_teacher"] < bits["control"]["eval_by_teacher"]
    assert bits["control"]["eval"] < bits["student"]["eval"]
    for one in read_jsonl(tmp_path / "run" / "evaluate" / "answers-student.jsonl"):
        assert one["reference"] == "a bad film"


def test_a_student_of_a_new_shape_takes_the_lenders_tokenizer_and_words(tmp_path: Path) -> None:
    with Endpoint(backwards) as endpoint:
        shape = {"config": {"num_layers": 1, "num_decoder_layers": 1}}
        student = {"from_config": shape, "tokenizer": str(tmp_path / "base")}
        plain = recipe(tmp_path, endpoint.url, rows=30, student=student)
        plain["train"]["steps"] = 2
        finish(plain, tmp_path / "run")
    made = read_json(tmp_path / "run" / "student" / "config.json")
    assert (made["num_layers"], made["num_decoder_layers"], made["model_type"]) == (1, 1, "t5")


def test_answers_without_words_or_with_control_tokens_are_counted_and_not_learned(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        first = prompt_of(body).removeprefix("Write backwards: ").split()[0]
        return {"the": "a book</s> <pad>", "a": "word " * 30, "old": "<think>so</think>\n"}.get(
            first, backwards(body)
        )

    with Endpoint(answer) as endpoint:
        result = labelled(recipe(tmp_path, endpoint.url, rows=120), tmp_path / "run")
    dropped = read_jsonl(tmp_path / "run" / "label" / "dropped.jsonl")
    assert {row["reason"] for row in dropped} == {
        "control token in the answer",
        "cut at max_tokens",
        "empty answer",
    }
    rows = len(read_jsonl(tmp_path / "run" / "prepare" / "asked-train.jsonl"))
    assert result["examples"] + sum(result["dropped"]["train"].values()) == rows


def test_sources_that_the_student_reads_in_part_are_counted_before_anybody_is_asked(tmp_path: Path) -> None:
    """The API is paid for the whole source, and says things of it that the student never reads."""
    with Endpoint(backwards) as endpoint:
        plain = recipe(tmp_path, endpoint.url, rows=30)
        plain["data"]["max_length"] = 5
        result = labelled(plain, tmp_path / "run")
    whole = [
        row["prompt"].split()
        for name in ("train", "eval")
        for row in read_jsonl(tmp_path / "run" / "prepare" / f"asked-{name}.jsonl")
    ]
    long = sum(len(words) + 1 > 5 for words in whole)
    assert 0 < long < len(whole)
    assert result["told"]["note"].startswith(
        f"{long} of {len(whole)} sources are longer than data.max_length (5 tokens)"
    )
    for one in read_examples(tmp_path / "run" / "label" / "train.parquet"):
        assert one.starts[1] <= 5 and len(one.input_ids) - one.starts[1] <= 5
    asked = {tuple(prompt_of(body).removeprefix("Write backwards: ").split()) for body in endpoint.bodies}
    assert asked == {tuple(words) for words in whole}


def test_a_run_that_max_cost_stopped_asks_for_the_rest_alone(tmp_path: Path) -> None:
    with Endpoint(backwards) as endpoint:
        plain = recipe(tmp_path, endpoint.url, rows=40)
        plain["teacher"]["api"] |= {"max_cost": 2.0, "concurrency": 2}
        with pytest.raises(ResourceError, match="max_cost"):
            labelled(plain, tmp_path / "run")
        before = len(endpoint.seen.delivered)
        plain["teacher"]["api"]["max_cost"] = 100.0
        result = labelled(plain, tmp_path / "run")
        assert set(endpoint.seen.delivered.values()) == {1}
    assert 0 < before < len(endpoint.seen.delivered) == result["examples"] + 12


def test_a_forecast_prices_every_source_and_asks_nobody(tmp_path: Path) -> None:
    with Endpoint(backwards) as endpoint:
        plain = recipe(tmp_path, endpoint.url, rows=40)
        with hurried():
            said = stillhouse(
                "plan",
                write_recipe(tmp_path / "r.yaml", plain),
                "--folder",
                tmp_path / "run",
                "--format",
                "json",
            )
        assert said.code == 0, said.err
        assert not endpoint.seen.delivered
    found = read_json(tmp_path / "run" / "plan" / "plan.json")
    rows = sum(
        len(read_jsonl(tmp_path / "run" / "prepare" / f"asked-{name}.jsonl")) for name in ("train", "eval")
    )
    assert found["requests"] == rows and found["money"] == pytest.approx(0.01 * 20 * rows)
    assert found["seconds"]["train"] > 0 == found["soft_target_bytes"]


def test_stand_ins_are_as_long_as_what_is_read_and_what_may_be_answered(tmp_path: Path) -> None:
    """The source as the student reads it, without the API's prompt, and a target of `max_tokens` or as many as are kept."""
    task = make_task("seq2seq", tiny.translator_tokenizer(), 6)
    rows = [{"id": str(n), "prompt": "old " * n} for n in (2, 9)]
    for most, target in ((3, 3), (99, 6)):
        api = parse_recipe(recipe(tmp_path, "http://localhost:1/v1")).teacher.api
        assert api is not None
        found = stand_ins(api.model_copy(update={"max_tokens": most}), task, rows)
        assert [(one.starts[1], one.counted) for one in found] == [(3, target), (6, target)]
        assert task.collate(found)["labels"].shape == (2, target)


def test_rounds_of_an_apis_targets_have_no_control_that_would_learn_them_as_well(tmp_path: Path) -> None:
    plan = {"kind": "rounds", "by": "uncertainty", "pool": {"source": str(tmp_path / "sources.jsonl")}}
    made = parse_recipe(recipe(tmp_path, "http://localhost:1/v1", plan=plan))
    refuse_rounds(made)
    assert not has_hard_only(made)


def test_validate_says_in_a_sentence_that_a_causal_model_is_no_student_of_targets(tmp_path: Path) -> None:
    tiny.save_language_model(tmp_path / "language")
    plain = recipe(tmp_path, "http://localhost:1/v1", student={"model": str(tmp_path / "language")})
    said = stillhouse("validate", write_recipe(tmp_path / "r.yaml", plain))
    assert (said.code, "which writes no target from a source" in " ".join(said.err.split())) == (2, True), (
        said.err
    )


@pytest.mark.parametrize("task", ["seq2seq", "causal_lm"])
@pytest.mark.parametrize("where", ["data.extra", "plan.pool"])
def test_validate_refuses_rows_beside_the_training_rows_that_have_no_targets(
    tmp_path: Path, where: str, task: str
) -> None:
    """It let them pass, and the run was then told to name columns that are not there."""
    tiny.save_language_model(tmp_path / "language")
    student = {} if task == "seq2seq" else {"student": {"model": str(tmp_path / "language")}, "task": task}
    plain = recipe(tmp_path, "http://localhost:1/v1", **student)
    more = tmp_path / "more.jsonl"
    if where == "data.extra":
        plain["data"]["extra"] = {"source": str(more)}
    else:
        plain["plan"] = {"kind": "rounds", "by": "uncertainty", "pool": {"source": str(more)}}
    if task == "causal_lm":
        del plain["teacher"]["api"]["prompt"]
    lines = [{"prompt": f"{row['prompt']} never"} for row in tiny.translations(8)]
    for target, code in ({}, 3), ({"completion": "old"}, 0):
        more.write_text("".join(json.dumps(line | target) + "\n" for line in lines))
        said = stillhouse("validate", write_recipe(tmp_path / "r.yaml", plain))
        assert said.code == code, said.err
        assert ("must have targets" in " ".join(said.err.split())) == (not target), said.err


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("Say it in {language}: {text}", "nothing is put in for {language}. Known here: {text}."),
        ("One of {label}: {text}", "nothing is put in for {label}. Known here: {text}."),
        ('As JSON, {"a": 1}: {text}', None),
    ],
)
def test_a_name_that_a_sources_prompt_would_send_as_it_stands_is_refused_in_a_file_or_not(
    tmp_path: Path, prompt: str, told: str | None, in_file: bool
) -> None:
    plain = recipe(tmp_path, "http://localhost:1/v1")
    (tmp_path / "asked.txt").write_text(prompt)
    plain["teacher"]["api"]["prompt"] = str(tmp_path / "asked.txt") if in_file else prompt
    said = stillhouse("validate", write_recipe(tmp_path / "r.yaml", plain))
    assert (said.code, (told or "") in " ".join(said.err.split())) == (2 if told else 0, True), said.err


def test_samples_show_an_answer_without_its_thoughts(tmp_path: Path) -> None:
    with Endpoint(lambda body: f"<think>from the end</think>\n\n{backwards(body).strip()}") as endpoint:
        plain = recipe(tmp_path, endpoint.url, rows=30)
        plain["train"]["steps"] = 2
        found = finish(plain, tmp_path / "run")
    (sample,) = found["samples"]
    source = sample["prompt"].removesuffix("</s>").split()
    assert sample["teacher"].split() == source[::-1]
    for one in read_jsonl(tmp_path / "run" / "evaluate" / "answers-student.jsonl"):
        assert one["reference"].split() == one["prompt"].split()[::-1]


def test_past_answers_belong_to_sources_whatever_they_were_asked_with(tmp_path: Path) -> None:
    """A file of pairs knows the source alone, and the reply to a stored request the whole of what was asked."""
    plain = recipe(tmp_path, "http://localhost:1/v1", rows=30)
    sources = [row["prompt"] for row in read_jsonl(tmp_path / "sources.jsonl")]
    pairs = [{"prompt": text, "completion": backwards({"prompt": text})} for text in sources[::2]]
    said = [
        {
            "request": {"messages": [{"role": "user", "content": ASKED.replace("{text}", text)}]},
            "response": {
                "choices": [{"message": {"content": backwards({"prompt": text})}, "finish_reason": "stop"}]
            },
        }
        for text in sources[1::2]
    ]
    (tmp_path / "past.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*pairs, *said]))
    plain["teacher"]["api"] = {"model": "big", "prompt": ASKED, "answers": str(tmp_path / "past.jsonl")}
    result = labelled(plain, tmp_path / "run")
    assert result["dropped"] == {"train": {}, "eval": {}}
    for source, target in texts(
        tmp_path / "base", read_examples(tmp_path / "run" / "label" / "train.parquet")
    ):
        assert target.removesuffix("</s>").split() == source.removesuffix("</s>").split()[::-1]


def test_a_stored_answer_to_the_bare_source_is_none_to_the_recipes_question(tmp_path: Path) -> None:
    """Its question is known, and is another one: summaries would have been learned as translations."""
    plain = recipe(tmp_path, "http://localhost:1/v1", rows=30)
    sources = [row["prompt"] for row in read_jsonl(tmp_path / "sources.jsonl")]
    said = [
        {
            "request": {"messages": [{"role": "user", "content": asked}]},
            "response": {"choices": [{"message": {"content": answer}, "finish_reason": "stop"}]},
        }
        for text in sources
        for asked, answer in (
            (text, "a bad film"),
            (ASKED.replace("{text}", text), backwards({"prompt": text})),
        )
    ]
    (tmp_path / "past.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    plain["teacher"]["api"] = {"model": "big", "prompt": ASKED, "answers": str(tmp_path / "past.jsonl")}
    labelled(plain, tmp_path / "run")
    examples = read_examples(tmp_path / "run" / "label" / "train.parquet")
    assert not [target for _, target in texts(tmp_path / "base", examples) if "bad film" in target]


def several_targets(plain: dict[str, Any], place: Path, rows: int = 20) -> None:
    """Let each source of the recipe stand there with three targets."""
    lines = [
        {"prompt": row["prompt"], "completion": f"a bad film {'and ' * number}old"}
        for row in tiny.translations(rows)
        for number in range(3)
    ]
    (place / "sources.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    plain["data"]["split"] = 18


def test_an_answer_is_learned_and_counted_once_however_many_targets_the_data_has(tmp_path: Path) -> None:
    """Copies of an answer are no more rows: they were learned three times, and made intervals too narrow by √3."""
    with Endpoint(backwards) as endpoint:
        plain = recipe(tmp_path, endpoint.url)
        several_targets(plain, tmp_path)
        plain["train"] |= {"steps": 2}
        plain["report"]["samples"] = 4
        plain["evaluate"]["answers"] = None
        found = finish(plain, tmp_path / "run")
        bought = len(endpoint.seen.delivered)
    train = read_examples(tmp_path / "run" / "label" / "train.parquet")
    learned = texts(tmp_path / "base", train)
    held = read_examples(tmp_path / "run" / "label" / "eval_by_teacher.parquet")
    own = read_examples(tmp_path / "run" / "prepare" / "eval.parquet")
    assert len(learned) == len(set(learned)) and len(train) + len(held) == bought
    assert len(own) == 18 > len(held) == len({one.key for one in held}), "the data's own targets stay"
    rows = {row["id"]: row["prompt"] for row in read_jsonl(tmp_path / "run" / "prepare" / "eval-rows.jsonl")}
    for one, (_, target) in zip(held, texts(tmp_path / "base", held), strict=True):
        assert target.removesuffix("</s>").split() == rows[one.row].split()[::-1]
    assert {name: sum(some.values()) for name, some in found["said"].items()} == {
        "train": len(train),
        "eval": len(held),
    }
    assert [len(one["teacher"]) > 0 for one in found["samples"]] == [True] * 4, "copies too were answered"


def test_an_answer_to_a_question_with_several_answers_is_one_row_of_a_language_model(tmp_path: Path) -> None:
    tiny.save_language_model(tmp_path / "language")
    with Endpoint(backwards) as endpoint:
        plain = recipe(
            tmp_path, endpoint.url, task="causal_lm", student={"model": str(tmp_path / "language")}
        )
        del plain["teacher"]["api"]["prompt"]
        plain["data"]["max_length"] = 64
        several_targets(plain, tmp_path)
        result = labelled(plain, tmp_path / "run")
        assert result["examples"] + result["sets"]["eval_by_teacher"]["rows"] == len(endpoint.seen.delivered)
    plan = read_json(tmp_path / "run" / "prepare" / "DONE.json")["result"]["sets"]["train"]
    assert plan["asked"] == result["examples"], "an epoch is as long as what is learned"


def test_an_apis_probabilities_sift_targets_and_measure_the_teacher_in_whatever_tokens(
    tmp_path: Path,
) -> None:
    """They are of the API's tokens, here letters, and nothing is compared with the student's."""

    def answer(body: dict[str, Any]) -> Said:
        text = backwards(body).strip()
        log_p = math.log(0.2 if text.split()[-1] in ("the", "a", "small", "old") else 0.9)
        return text, [(letter, {letter: log_p}) for letter in text]

    with Endpoint(answer) as endpoint:
        plain = recipe(tmp_path, endpoint.url, rows=120)
        plain["teacher"]["api"]["top_logprobs"] = 1
        plain["data"]["filter"] = {"min_confidence": 0.5}
        result = labelled(plain, tmp_path / "run")
    dropped = read_jsonl(tmp_path / "run" / "label" / "dropped.jsonl")
    assert dropped and {row["set"] for row in dropped} == {"train"}
    assert {row["confidence"] for row in dropped} == {0.2}
    asked = read_jsonl(tmp_path / "run" / "prepare" / "asked-train.jsonl")
    unsure = [row for row in asked if row["prompt"].split()[0] in ("the", "a", "small", "old")]
    assert len(dropped) == len(unsure) and result["examples"] == len(asked) - len(unsure)
    heard = load_file(tmp_path / "run" / "label" / "heard-eval.safetensors")
    each = heard["nll"] / heard["bytes"]
    assert len(each) == 12 and set(each.round(4)) <= {round(-math.log(p), 4) for p in (0.2, 0.9)}


def test_a_tokenizer_that_is_written_in_python_learns_an_apis_answers(tmp_path: Path) -> None:
    """ByT5's and Marian's say nothing of the bytes of their tokens: the run ended with a traceback when all was paid."""
    model = tiny.translator("t5", layers=1, pad_to=384)
    model.save_pretrained(tmp_path / "bytes")
    ByT5Tokenizer().save_pretrained(tmp_path / "bytes")
    with Endpoint(backwards) as endpoint:
        plain = recipe(tmp_path, endpoint.url, rows=20, student={"model": str(tmp_path / "bytes")})
        plain["data"]["max_length"] = 64
        labelled(plain, tmp_path / "run")
    for source, target in texts(
        tmp_path / "bytes", read_examples(tmp_path / "run" / "label" / "train.parquet")
    ):
        assert target.removesuffix("</s>").split() == source.removesuffix("</s>").split()[::-1]


def test_a_sweep_whose_runs_read_other_texts_pairs_none_and_calls_none_the_best(tmp_path: Path) -> None:
    """Nothing tells the prepared rows apart, for they have no targets: what was measured are the answers to each prompt, of which
    one has fewer that can be used.  It ended with an error about shapes when all was paid."""

    def answer(body: dict[str, Any]) -> str:
        source = prompt_of(body).removeprefix("Same: ")
        if source == prompt_of(body):
            return backwards(body)
        return "word " * 30 if len(source) % 2 else source

    with Endpoint(answer) as endpoint:
        plain = recipe(tmp_path, endpoint.url, rows=40)
        plain["sweep"] = {"teacher.api.prompt": [ASKED, "Same: {text}"]}
        plain["train"]["steps"] = 2
        plain["evaluate"] |= {"answers": None, "hard_only": False}
        with hurried():
            said = stillhouse("run", write_recipe(tmp_path / "r.yaml", plain), "--folder", tmp_path / "run")
    assert said.code == 0, said.err
    found = read_json(tmp_path / "run" / "results.json")
    assert not found["same_rows"]
    assert [gap["low"] for gap in found["comparisons"]] == [None]
    assert "None of 2 can be called the best" in said.out and "The best of" not in said.out


def test_training_ends_early_by_the_answers_that_were_asked_for_rows_set_aside(tmp_path: Path) -> None:
    """They are paid, and no training row is given up in their place; the control is judged by the same ones."""
    with Endpoint(backwards) as endpoint:
        plain = recipe(tmp_path, endpoint.url, rows=40)
        lines = [json.loads(line) for line in (tmp_path / "sources.jsonl").read_text().splitlines()]
        plain["data"] |= {"validation": 0.2, "split": 6}
        plain["train"] |= {"steps": 2, "early_stopping": {"every": 2, "patience": 1, "rows": 3}}
        plain["objective"] = [{"kind": "hard"}]
        labelled(plain, tmp_path / "run")
    place = tmp_path / "run" / "label"
    facts = read_json(tmp_path / "run" / "prepare" / "DONE.json")["result"]
    train, aside = (read_examples(place / f"{name}.parquet") for name in ("train", "validation"))
    assert len(train) + len(aside) + 6 == len(lines) and len(aside) > 3
    wanted = parse_recipe(plain).train.early_stopping
    for stage in ("train", "control"):
        learned, chosen = set_aside(wanted, train, facts, tmp_path / "run" / stage)
        assert chosen is not None and chosen.of == "data.validation"
        assert [one.key for one in chosen.examples] == [one.key for one in aside[:3]]
        assert len(learned) == len(train)
    control = next(stage for stage in STAGES if stage.name == "control")
    assert ("label.sets.validation", "train.early_stopping") in control.after_if_there, (
        "it learns anew when these answers are others"
    )


@pytest.mark.parametrize("targets", [0, 30])
def test_a_forecast_counts_every_source_in_an_epoch_and_prices_what_will_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, targets: int
) -> None:
    """Lengths are guessed of some rows, and of those with a target where some have none; there is a control where some have one, and
    the held-out sources are read with their answers."""
    monkeypatch.setattr(plan, "ENOUGH", 8)
    monkeypatch.setattr(paces, "SECONDS", 0.01)
    seen: dict[str, Any] = {}

    def takes(recipe: Any, task: Any, held: dict[str, list[Example]], speed: Any, control: bool) -> float:
        seen.update({name: len(some) for name, some in held.items()}, control=control)
        return 1.0

    monkeypatch.setattr(plan, "evaluation_takes", takes)
    plain = recipe(tmp_path, "http://127.0.0.1:9/v1")
    lines = [
        {"prompt": f"{row['prompt']} {word}", **({"completion": "a film"} if n % 60 < targets else {})}
        for n, (row, word) in enumerate(
            (row, word) for word in ("well", "never") for row in tiny.translations(60)
        )
    ]
    (tmp_path / "sources.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain["train"] = {**plain["train"], "epochs": 1}
    del plain["train"]["steps"]
    made = parse_recipe(plain)
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "machine.json", {"bfloat16": False})
    run_pipeline(made, STAGES, tmp_path / "run", Silent(), until="plan")
    found = read_json(tmp_path / "run" / "plan" / "plan.json")
    facts = read_json(tmp_path / "run" / "prepare" / "DONE.json")["result"]
    rows = facts["sets"]["train"]["asked"]
    assert rows > 80 and found["examples"] == rows
    steps = math.ceil(rows / 8)
    shortest, longest = 3, 2 * 16
    assert shortest < found["tokens"]["trained"] / (8 * steps) <= longest
    own = facts["sets"]["eval"]["rows"]
    assert (own > 0) == (targets > 0)
    both = {"eval": own, "eval_by_teacher": 12} if own else {"eval": 12}
    assert seen == {**both, "control": targets > 0}
    assert (found["seconds"]["control"] > 0) == (targets > 0)
