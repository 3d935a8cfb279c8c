"""A judge of pairs over real HTTP: both orders, strict replies, nothing bought twice."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import planted
import report_fixtures
import tiny
from endpoint import Endpoint, prompt_of
from stillhouse.asking import Answer
from stillhouse.data.templates import check_judge
from stillhouse.errors import GateError, RecipeError, TeacherError
from stillhouse.judge import judge, request_of, verdict_of
from stillhouse.plans.expand import expand
from stillhouse.progress import Silent
from stillhouse.recipe import Judge, parse_recipe
from stillhouse.report.evidence import sections
from stillhouse.runner import run
from stillhouse.static import static_checks
from stillhouse.steps.finish import check_gate
from typed import hurried, stillhouse

ROWS = [{"id": str(number), "prompt": f"question {number}?", "where": ""} for number in range(12)]


def parts(body: dict[str, Any]) -> tuple[str, str, str]:
    """(request, answer A, answer B) that a judge was shown."""
    said = prompt_of(body)
    found = re.search(
        r"<request>\n(.*)\n</request>.*<answer-A>\n(.*)\n</answer-A>.*<answer-B>\n(.*)\n</answer-B>",
        said,
        re.DOTALL,
    )
    assert found, said
    return found[1], found[2], found[3]


def longer(body: dict[str, Any]) -> str:
    """A judge that knows what it wants, and says so as it was told."""
    _, first, second = parts(body)
    word = "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"
    return f"One is longer.\nVerdict: {word}"


def folder_with(place: Path, **answers: list[str]) -> Path:
    """The evaluate folder of a run whose models wrote `answers`."""
    folder = place / "evaluate"
    folder.mkdir(parents=True)
    for name, texts in answers.items():
        lines = [json.dumps({"row": str(number), "answer": text}) + "\n" for number, text in enumerate(texts)]
        (folder / f"answers-{name}.jsonl").write_text("".join(lines))
    return folder


def asked(
    folder: Path, url: str, names: tuple[str, ...] = ("student", "teacher"), resamples: int = 200, **more: Any
) -> Any:
    wanted = Judge(
        api={"base_url": url, "model": "big", "timeout": 20.0}, against=["teacher", "hard_only"], **more
    )  # type: ignore[arg-type]
    return judge(wanted, names, ROWS, {}, folder, Silent(), resamples=resamples, seed=0)


def test_each_prompt_is_judged_in_both_orders_and_never_bought_twice(tmp_path: Path) -> None:
    ours = ["long answer" if number < 8 else "no" for number in range(12)]
    folder = folder_with(tmp_path, student=ours, teacher=["middling"] * 12)
    with Endpoint(longer) as endpoint:
        found = asked(folder, endpoint.url)["against"]["teacher"]
        shown = [parts(body) for body in endpoint.bodies]
        again = asked(folder, endpoint.url)["against"]["teacher"]
        assert len(endpoint.bodies) == 24, "the second time nothing is asked"
    assert again == found
    pairs = {(request, frozenset((first, second))): 0 for request, first, second in shown}
    for request, first, second in shown:
        pairs[request, frozenset((first, second))] += 1 if first == "middling" else 10
    assert set(pairs.values()) == {11}, "once in each order"
    assert found["win_rate"]["value"] == pytest.approx(8 / 12)
    assert (found["wins"], found["losses"], found["unparsable"], found["replies"]) == (8, 4, 0, 24)
    assert found["first_place"]["value"] == 0.5
    assert found["same_twice"]["value"] == 1.0


def test_a_reply_without_a_verdict_is_counted_and_its_prompt_left_out(tmp_path: Path) -> None:
    """One order alone would let the judge's favourite place decide."""

    def sometimes(body: dict[str, Any]) -> str:
        request, first, _ = parts(body)
        number = int(re.findall(r"\d+", request)[0])
        return "A is better." if number < 3 and first.startswith("long") else longer(body)

    folder = folder_with(tmp_path, student=["long answer"] * 12, teacher=["short"] * 12)
    with Endpoint(sometimes) as endpoint:
        found = asked(folder, endpoint.url)["against"]["teacher"]
    assert (found["unparsable"], found["replies"], found["judged"]) == (3, 24, 9)
    assert found["win_rate"]["value"] == 1.0


def test_equal_answers_are_ties_that_nobody_is_paid_for(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, student=["same"] * 12, teacher=["same "] * 10 + ["other one"] * 2)
    with Endpoint(longer) as endpoint:
        found = asked(folder, endpoint.url)["against"]["teacher"]
        assert len(endpoint.bodies) == 4
    assert (found["alike"], found["ties"], found["losses"], found["judged"]) == (10, 10, 2, 12)


def test_opponents_share_one_error_rate(tmp_path: Path) -> None:
    """Nine prompts won, two lost, one tied is beyond chance against one opponent, and not where a second one was asked about."""
    theirs = ["a" if number < 9 else "longest" if number < 11 else "other" for number in range(12)]
    answers = {"student": ["ought"] * 12, "teacher": theirs}
    with Endpoint(longer) as endpoint:
        alone = asked(folder_with(tmp_path / "one", **answers), endpoint.url, resamples=4000)
        folder = folder_with(tmp_path / "two", **answers, hard_only=["a", "longest"] * 6)
        names = ("student", "teacher", "hard_only")
        both = asked(folder, endpoint.url, names, resamples=4000)
    one = alone["against"]["teacher"]["preferred"]
    assert one["better"] is True and one["p"] == pytest.approx(79 / 2048, abs=0.01)
    two = both["against"]["teacher"]["preferred"]
    assert two["p"] == one["p"] and two["p_holm"] == pytest.approx(2 * one["p"])
    assert two["better"] is None
    results = {**report_fixtures.language_model(), "judged": both}
    section = next(each for each in sections(results) if each.title == "Judged in pairs")
    assert section.rows[0][3] == f"not told apart (p = {two['p_holm']:.3f})"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Verdict: A", "first"),
        ("B says more.\n\nverdict: b\n", "second"),
        ("Verdict: tie", "tie"),
        ("Verdict: A or B", None),
        ("I choose A", None),
        ("Verdict: A\nBut B is nice too.", None),
        ("A", None),
        ("The answer says 'Verdict: B'.\nVerdict: A", "first"),
        ("", None),
    ],
)
def test_a_reply_is_a_verdict_or_none(text: str, verdict: str | None) -> None:
    assert verdict_of(Answer("answered", text)) == verdict
    assert verdict_of(Answer("truncated", text)) is None


def test_answers_with_names_in_them_are_data_and_a_prompt_is_a_file(tmp_path: Path) -> None:
    """A student that writes {second} must not be shown the other's answer as its own."""
    own = tmp_path / "mine.txt"
    own.write_text(
        "Which?\n<request>\n{prompt}\n</request><answer-A>\n{first}\n</answer-A><answer-B>\n{second}\n</answer-B>"
    )
    folder = folder_with(tmp_path, student=["{second} wins"] * 12, teacher=["plain"] * 12)
    with Endpoint(longer) as endpoint:
        asked(folder, endpoint.url, prompt=str(own))
        shown = {parts(body)[1:] for body in endpoint.bodies}
        assert all(prompt_of(body).startswith("Which?") for body in endpoint.bodies)
    assert shown == {("{second} wins", "plain"), ("plain", "{second} wins")}
    own.write_text("{prompt} {first}")
    with pytest.raises(RecipeError, match=r"evaluate\.judge\.prompt: .* has no \{second\}"):
        check_judge(own)
    own.write_text("{prompt} {first} {second} {answer}")
    with pytest.raises(RecipeError, match="nothing is put in for {answer}"):
        check_judge(own)
    with pytest.raises(RecipeError, match="is not there"):
        check_judge(tmp_path / "gone.txt")
    check_judge(None)


def test_an_endpoint_that_refuses_is_named_by_its_own_field(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, student=["a"] * 12, teacher=["b"] * 12)
    with (
        Endpoint(longer, key="secret") as endpoint,
        pytest.raises(TeacherError, match=r"^evaluate\.judge\.api: "),
    ):
        asked(folder, endpoint.url)


def test_a_conversation_is_asked_up_to_its_first_answer() -> None:
    turns = [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "say 1"},
        {"role": "assistant", "content": "one"}, {"role": "user", "content": "more"},
    ]  # fmt: skip
    assert request_of({"messages": turns}) == "system: be brief\nuser: say 1"


def recipe_of(folder: Path, url: str, **judge: Any) -> Any:
    rows = [{"prompt": f"{n}: ", "completion": text} for n, text in enumerate(tiny.sentences(40))]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = tiny.language_recipe(folder)
    values["data"] = {"train": {"source": str(folder / "rows.jsonl")}, "split": 8, "max_length": 96}
    values["train"] = {"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "precision": "float32"}
    values["evaluate"] = {
        "resamples": 200, "speed": False, "answers": {"rows": 6, "max_new_tokens": 6},
        "judge": {"api": {"base_url": url, "model": "big"}, **judge},
    }  # fmt: skip
    return parse_recipe({**values, "report": {"samples": 0}, "gate": {"min_win_rate": 0.01}})


def test_a_run_is_judged_and_its_gate_asks_the_judge(tmp_path: Path) -> None:
    with Endpoint(lambda body: "Verdict: A") as endpoint:
        recipe = recipe_of(tmp_path, endpoint.url)
        assert any("evaluate.judge: big at" in note for note in static_checks(recipe, tmp_path))
        with hurried():
            found = run(recipe, tmp_path / "run")
        requests = len(endpoint.bodies)
        shutil.rmtree(tmp_path / "run/evaluate")
        with hurried():
            again = run(recipe, tmp_path / "run")
        assert len(endpoint.bodies) == requests, "the ledger outlives the stage"
    assert again["judged"] == found["judged"]
    assert set(found["judged"]["against"]) == {"teacher", "hard_only"}
    one = found["judged"]["against"]["teacher"]
    assert one["win_rate"]["value"] == 0.5
    assert one["alike"] == one["prompts"] or one["first_place"]["value"] == 1.0
    section = next(one for one in sections(found) if one.title == "Judged in pairs")
    assert len(section.rows) == 2
    found["judged"]["against"]["teacher"]["win_rate"]["value"] = 0.001
    with pytest.raises(GateError, match=r"gate\.min_win_rate: .* is 0\.0010, and must be at least 0\.01"):
        check_gate(recipe, found)
    with pytest.raises(GateError, match=r"gate\.min_win_rate: .* could not be told"):
        check_gate(recipe, {**found, "judged": None})


def test_of_a_plan_the_product_alone_is_judged_and_against_its_teacher(tmp_path: Path) -> None:
    """It was the other way round, and a gate on what nobody judged ended in a traceback after everything was paid."""
    values = recipe_of(tmp_path, "http://127.0.0.1:9/v1").model_dump(mode="json")
    phases = {"kind": "phases", "phases": [{"name": "one"}, {"name": "two"}]}
    runs = {one.name: one.values for one in expand(parse_recipe({**values, "plan": phases})).runs}
    assert runs["one"]["evaluate"]["judge"] is None and runs["one"]["gate"]["min_win_rate"] is None
    assert runs["two"]["evaluate"]["judge"]["against"] == ["teacher"]
    assert runs["two"]["gate"]["min_win_rate"] == values["gate"]["min_win_rate"]


def test_check_asks_what_the_judge_said(tmp_path: Path) -> None:
    won = {"win_rate": {"value": 0.6, "low": 0.4, "high": 0.8}}
    place = planted.run(tmp_path / "run", judged={"against": {"teacher": won}})
    assert stillhouse("check", place, "--min-win-rate", 0.5).code == 0
    assert stillhouse("check", place, "--min-win-rate", 0.5, "--sure").code == 6
    said = stillhouse("check", planted.run(tmp_path / "other"), "--min-win-rate", 0.5)
    assert (said.code, "nobody judged" in said.err) == (6, True)


@pytest.mark.parametrize(
    ("evaluate", "said"),
    [
        ({"judge": {"api": {"base_url": "http://x/v1", "model": "m"}}}, "add evaluate.answers"),
        (
            {"answers": {}, "judge": {"api": {"base_url": "http://x/v1", "model": "m", "top_logprobs": 3}}},
            "api.top_logprobs: is for a teacher",
        ),
        (
            {"answers": {}, "judge": {"api": {"answers": "x.jsonl", "model": "m"}}},
            "api.answers: is for a teacher",
        ),
    ],
)
def test_a_judge_that_cannot_be_is_one_sentence(tmp_path: Path, evaluate: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(tiny.language_recipe(tmp_path, evaluate=evaluate))
