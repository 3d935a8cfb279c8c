"""A judge behind an API: what is a score, what it decides, and what is paid for it."""

import os
from pathlib import Path
from typing import Any

import pytest

from endpoint import Endpoint, prompt_of
from stillhouse.asking import Answer, Ledger, ask
from stillhouse.data.formats import Row, with_id
from stillhouse.data.split import Prepared
from stillhouse.data.templates import judge_prompt
from stillhouse.errors import RecipeError, ResourceError
from stillhouse.files import read_json, write_json
from stillhouse.forecast import foretell
from stillhouse.pipeline import run_pipeline
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.stages import STAGES
from stillhouse.steps import judging, writing
from stillhouse.steps.paid import dollars_paid
from stillhouse.steps.unwritten import open_texts
from stillhouse.teachers.api_judge import score_of
from stillhouse.teachers.api_writer import Lost
from tiny import save_language_model
from typed import hurried

SHORT = {"max_new_tokens": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("judge") / "base", layers=1)


def reply(body: dict[str, Any]) -> str:
    """Answers with a digit that the request's seed decides; as a judge, says the digit that it was shown, and of a 3 nothing."""
    prompt = prompt_of(body)
    if body["model"] != "judge":
        return f"It is {1 + int(body.get('seed', 8)) % 9}."
    answer = prompt.partition("<answer>")[2].partition("</answer>")[0]
    digit = next(one for one in answer if one.isdigit())
    return "I cannot say." if digit == "3" else f"Of 10, so far.\nScore: {digit}"


def recipe_for(folder: Path, url: str, data: dict[str, Any], **judge: Any) -> dict[str, Any]:
    """A teacher on this machine, a writer and a judge behind one endpoint."""
    writer = {"writer": {"api": {"base_url": url, "model": "big"}}} if "generate" in data else {}
    return {
        "name": "judged", "task": "causal_lm", "teacher": {"model": str(folder)}, "student": {"model": str(folder)},
        "data": {
            "train": {"source": "rows.jsonl"}, "max_length": 64, "split": 4, **writer, **data,
            "judge": {"api": {"base_url": url, "model": "judge", **judge}},
        },
        "objective": [{"kind": "hard"}],
    }  # fmt: skip


def rows_of(count: int) -> Prepared:
    rows: list[Row] = [
        with_id({"where": f"x:{n}", "prompt": f"What is at {n}?", "completion": f" {n % 10}"})
        for n in range(1, count + 1)
    ]
    counted = {"read": count, "added": 0, "held_out": 0, "kept": count, "dropped": {}}
    return Prepared(rows, [], [], {}, [], {"train": counted})


def writers(folder: Path) -> dict[str, Any]:
    """Who writes: the teacher alone, and no judge on this machine."""
    return {
        "teacher": {"folder": str(folder)},
        "writer": None,
        "others": [],
        "judge": None,
        "bfloat16": False,
    }


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Good.\nScore: 7", 0.7), ("score: 10", 1.0), ("**Score: 8**", 0.8), ("4", 0.4), ("Score: 9/10", 0.9),
        ("Score: 6.5", 0.65), ("<think>Score: 2</think>\n\nScore: 1.\n", 0.1),
        ("Score: 0", None), ("Score: 11", None), ("Score: 70", None), ("-7", None), ("Score: 7\nOr so.", None), ("7 of 10 agree", None),
        ("Score: N", None), ("good", None),
    ],
)  # fmt: skip
def test_only_a_last_line_that_is_a_number_from_1_to_10_is_a_score(text: str, score: float | None) -> None:
    found = score_of(Answer("answered", text))
    if score is None:
        assert found == Lost("no score: no number from 1 to 10 at the end")
    else:
        assert found == pytest.approx(score)


def test_a_reply_that_was_cut_off_is_no_score() -> None:
    found = score_of(Answer("truncated", "Score: 7", "longer than asked for: 9"))
    assert found == Lost("no score: longer than asked for")


def test_rows_that_it_scores_low_or_not_at_all_are_dropped_and_nobody_is_asked_twice(
    tmp_path: Path, folder: Path
) -> None:
    with Endpoint(reply) as endpoint:
        for least, kept in ((0.5, {"5", "6", "7", "8", "9"}), (0.8, {"8", "9"})):
            recipe = parse_recipe(recipe_for(folder, endpoint.url, {"filter": {"min_score": least}}))
            found = judging.judged(recipe, rows_of(9), {}, tmp_path, Silent())
            assert {row["completion"].strip() for row in found.train} == kept
    assert len(endpoint.bodies) == 9, "another threshold asks nobody"
    assert found.counts["train"]["dropped"] == {
        "judge score below 0.8": 6, "no score: no number from 1 to 10 at the end": 1
    }  # fmt: skip
    assert found.counts["train"]["kept"] == 2
    assert {row.get("score") for row in found.dropped} == {None, 0.1, 0.2, 0.4, 0.5, 0.6, 0.7}
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.answers(judging.api_judge(recipe).requests(rows_of(9).train)).keys()


def test_what_it_was_asked_is_kept_whole_and_by_this_run_alone(tmp_path: Path, folder: Path) -> None:
    """A line that a killed process left unfinished hides no other; another name of the file still has what it had."""
    run = tmp_path / "run"
    (run / judging.ASKED).parent.mkdir(parents=True)
    (run / judging.ASKED).write_text("0123")
    os.link(run / judging.ASKED, tmp_path / "another")
    with Endpoint(reply) as endpoint:
        recipe = parse_recipe(recipe_for(folder, endpoint.url, {"filter": {"min_score": 0.5}}))
        judging.judged(recipe, rows_of(9), {}, run, Silent())
    judge = judging.api_judge(recipe)
    assert judge is not None
    wanted = {"0123", *(one.key for one in judge.requests(rows_of(9).train))}
    assert (run / judging.ASKED).read_text().split() == sorted(wanted)
    assert (tmp_path / "another").read_text() == "0123"


def test_of_several_answers_the_one_that_it_scores_highest_stays(tmp_path: Path, folder: Path) -> None:
    wanted = {"kind": "answers", "samples": 4, "temperature": 1.0, "choose": "judge", **SHORT}
    models = writers(folder)
    with Endpoint(reply) as endpoint:
        recipe = parse_recipe(recipe_for(folder, endpoint.url, {"generate": [wanted]}))
        found = writing.write_rows(recipe, rows_of(6), models, tmp_path / "prepare", Silent())
        asked = len(endpoint.bodies)
        again = writing.write_rows(recipe, rows_of(6), models, tmp_path / "prepare", Silent())
    assert len(endpoint.bodies) == asked
    assert again.train == found.train
    said: dict[str, set[int]] = {}
    for body in endpoint.bodies:
        if body["model"] == "big":
            said.setdefault(prompt_of(body), set()).add(1 + int(body["seed"]) % 9)
    best = {prompt: max(digits - {3}) for prompt, digits in said.items() if digits - {3}}
    assert any(len(digits) > 1 for digits in said.values())
    assert {row["prompt"]: row["completion"].strip() for row in found.train} == {
        prompt: f"It is {digit}." for prompt, digit in best.items()
    }


def test_answers_of_which_none_is_scored_say_so(tmp_path: Path, folder: Path) -> None:
    wanted = {"kind": "answers", "samples": 2, "temperature": 1.0, "choose": "judge", **SHORT}
    models = writers(folder)

    def silent(body: dict[str, Any]) -> str:
        return reply(body) if "at 1?" in prompt_of(body) or body["model"] != "judge" else "Hm."

    with Endpoint(silent) as endpoint:
        recipe = parse_recipe(recipe_for(folder, endpoint.url, {"generate": [wanted]}))
        found = writing.write_rows(recipe, rows_of(3), models, tmp_path / "prepare", Silent())
    why = found.counts["written"]["dropped"]
    assert why["no score: no number from 1 to 10 at the end"] >= 2


def whole(tmp_path: Path, folder: Path, url: str, data: dict[str, Any], **judge: Any) -> dict[str, Any]:
    lines = [f'{{"prompt": "What is at {n}?", "completion": " {n % 9 + 1}"}}' for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    values = recipe_for(folder, url, data, **judge)
    values["data"]["train"] = {"source": str(tmp_path / "rows.jsonl")}
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "machine.json", {"bfloat16": False})
    return values


PRICED = {"price": {"input": 1.0, "output": 1.0}}


def test_the_forecast_counts_the_judge_before_anybody_is_asked(tmp_path: Path, folder: Path) -> None:
    generate = [{"kind": "answers", "samples": 2, "temperature": 1.0, "choose": "judge", **SHORT}]
    place = tmp_path / "run"
    with Endpoint(reply) as endpoint:
        values = whole(tmp_path, folder, endpoint.url, {"generate": generate}, **PRICED)
        values["data"]["writer"]["api"] |= PRICED
        recipe = parse_recipe(values)
        with hurried():
            assert foretell(recipe, place, Silent())
        assert not endpoint.bodies
        before = read_json(place / "plan" / "plan.json")
        run_pipeline(recipe, STAGES, place, Silent(), until="prepare")
    assert before["requests"] == 8 * 2 * 2, "two answers to each prompt, and a score for each"
    assert len(endpoint.bodies) <= before["requests"], "equal answers are judged once"
    with Ledger(place / "ledger.sqlite") as ledger:
        assert 0 < ledger.spent() <= before["money"]
        all_of_it = ledger.spent()
    prepared = read_json(place / "prepare" / "DONE.json")["result"]
    paid = dollars_paid(recipe, prepared, None, place)
    assert set(paid) == {"data.writer.api", "data.judge.api"}
    assert paid["data.judge.api"] > 0
    assert sum(paid.values()) == pytest.approx(all_of_it), "each question is paid for once, whoever asked it"


def test_a_filter_alone_is_forecast_too_and_stops_at_its_cost(tmp_path: Path, folder: Path) -> None:
    place = tmp_path / "run"
    with Endpoint(reply) as endpoint:
        values = whole(
            tmp_path, folder, endpoint.url, {"filter": {"min_score": 0.2}}, **PRICED, max_cost=1e-6
        )
        recipe = parse_recipe(values)
        with hurried():
            assert foretell(recipe, place, Silent())
        assert read_json(place / "plan" / "plan.json")["requests"] == 8
        with pytest.raises(ResourceError, match="max_cost"):
            run_pipeline(recipe, STAGES, place, Silent(), until="prepare")
    assert not endpoint.bodies


def test_what_it_is_to_score_goes_out_as_a_batch_once_the_answers_are_there(
    tmp_path: Path, folder: Path
) -> None:
    generate = [{"kind": "answers", "samples": 2, "temperature": 1.0, "choose": "judge", **SHORT}]
    with Endpoint(reply) as endpoint:
        recipe = parse_recipe(whole(tmp_path, folder, endpoint.url, {"generate": generate}))
        requests, left = open_texts(recipe, tmp_path / "run", Silent())
        assert ({one.body["model"] for one in requests}, left) == ({"big"}, 1)
        writer = recipe.data.writer.api
        with Ledger(tmp_path / "run" / "ledger.sqlite") as ledger:
            ask(writer, requests, ledger)
        asked = len(endpoint.bodies)
        requests, left = open_texts(recipe, tmp_path / "run", Silent())
        assert ({one.body["model"] for one in requests}, left) == ({"big", "judge"}, 0)
        assert len(endpoint.bodies) == asked, "nobody is asked"


@pytest.mark.parametrize(
    ("judge", "remedy"),
    [
        ({}, "data.judge.model: give either model or api"),
        ({"model": "a/b", "api": {"base_url": "http://x/v1", "model": "m"}}, "give either model or api"),
        (
            {"revision": "main", "api": {"base_url": "http://x/v1", "model": "m"}},
            "an api has no weights here",
        ),
        (
            {"api": {"base_url": "http://x/v1", "model": "m", "top_logprobs": 3}},
            "top_logprobs: is for a teacher",
        ),
        ({"api": {"answers": "x.jsonl", "model": "m"}}, "answers: is for a teacher"),
    ],
)
def test_a_judge_that_cannot_be_is_refused(folder: Path, judge: dict[str, Any], remedy: str) -> None:
    values = recipe_for(folder, "http://x/v1", {"filter": {"min_score": 0.5}})
    values["data"]["judge"] = judge
    with pytest.raises(RecipeError) as error:
        parse_recipe(values)
    assert remedy in str(error.value)


def test_a_prompt_that_does_not_show_the_answer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("How good is it? {text}")
    with pytest.raises(RecipeError, match=r"no \{pair\}, where the answer is put in"):
        judge_prompt(str(tmp_path / "mine.txt"))
