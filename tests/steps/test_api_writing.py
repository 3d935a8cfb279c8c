"""Texts that an API writes: over real HTTP, asked for once, counted, paid within limits and priced before."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from endpoint import Endpoint, prompt_of
from stillhouse.asking import Ledger, chat
from stillhouse.asking.messages import place_of
from stillhouse.data.encode import read_examples
from stillhouse.data.formats import Row, with_id
from stillhouse.data.sets import standing_in
from stillhouse.data.split import Prepared, prepare
from stillhouse.data.written import new_tasks
from stillhouse.errors import DataError, RecipeError, ResourceError, TeacherError
from stillhouse.files import hash_json, read_json, write_json
from stillhouse.forecast import foretell
from stillhouse.locks import locked
from stillhouse.models.load import load_tokenizer
from stillhouse.plans.price import price
from stillhouse.progress import Silent
from stillhouse.recipe import Api, Recipe, parse_recipe
from stillhouse.recipe import generate as kinds
from stillhouse.runner import plan_stages, run_stages, run_write_part
from stillhouse.steps import writing
from stillhouse.steps.fetching import fetch_models, terms_of_writers
from stillhouse.steps.finish import licences
from stillhouse.steps.unwritten import foretold_rows
from stillhouse.teachers.api_writer import ApiWriter
from stillhouse.teachers.writer import LocalWriter
from tiny import save_language_model, sentences
from tongues import save_other_student
from typed import hurried, start, stillhouse, write_recipe

SHORT = {"max_new_tokens": 12}
API = {"base_url": "http://localhost:1/v1", "model": "w"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("api") / "base", layers=2)


def unlike(body: dict[str, Any]) -> str:
    """A text of its own for each request."""
    return f"text {hash_json(body)[:12]}"


def recipe_for(folder: Path, url: str, generate: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    api = {"base_url": url, "model": "big", "concurrency": 4, **changes.pop("api", {})}
    return {
        "name": "box", "task": "causal_lm", "teacher": {"api": api}, "student": {"model": str(folder)},
        "data": {"train": {"source": "rows.jsonl"}, "generate": generate, "max_length": 64, "split": 4,
                 **changes.pop("data", {})},
        "objective": [{"kind": "hard"}], **changes,
    }  # fmt: skip


def questions(count: int, answer: str | None = " It is so.") -> list[Row]:
    rows: list[Row] = [
        {"where": f"x:{n}", "prompt": f"What is number {n} of the list?"} for n in range(count)
    ]
    return [with_id({**row, "completion": answer} if answer else row) for row in rows]


def reviews(count: int, good: int) -> list[Row]:
    return [
        with_id({"where": f"x:{n}", "text": f"review {n} of a film", "label": "good" if n < good else "bad"})
        for n in range(count)
    ]


def written(values: dict[str, Any], folder: Path, run: Path, train: list[Row]) -> Prepared:
    """The rows of a recipe after its API wrote."""
    rows = Prepared(train, [], [], {}, [], {})
    models = {"teacher": {"folder": str(folder)}, "writer": None, "others": [], "bfloat16": False}
    return writing.write_rows(parse_recipe(values), rows, models, run / "prepare", Silent())


# ── kinds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("wanted", "rows", "requests"),
    [
        ({"kind": "answers"}, 4, 4),
        ({"kind": "paraphrase", "copies": 2}, 8, 8),
        ({"kind": "back_translation"}, 4, 8),
        ({"kind": "self_instruct", "rows": 3}, 3, 6),
        ({"kind": "evol_instruct", "rounds": 2}, 8, 16),
        ({"kind": "rationale"}, 4, 4),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_each_kind_for_language_models_is_one_request_a_text(
    tmp_path: Path, folder: Path, wanted: dict[str, Any], rows: int, requests: int
) -> None:
    train = questions(4)
    with Endpoint(unlike) as endpoint:
        found = written(recipe_for(folder, endpoint.url, [wanted]), folder, tmp_path, train)
        again = written(recipe_for(folder, endpoint.url, [wanted]), folder, tmp_path, train)
    new = [row for row in found.train if row["id"] in found.written]
    assert len(endpoint.bodies) == requests == found.counts["written"]["texts"], (
        "a second run asks for nothing"
    )
    assert again == found
    assert len(new) == rows, found.dropped
    asked = [body for body in endpoint.bodies if body.get("temperature")]
    assert all("seed" in body for body in asked) and len({body["seed"] for body in asked}) == len(asked)
    assert not any("seed" in body for body in endpoint.bodies if body not in asked)
    assert {body["max_tokens"] for body in endpoint.bodies} == {256}
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert [row["purpose"] for row in ledger.summary()] == [wanted["kind"]]


@pytest.mark.parametrize(
    ("wanted", "labelled", "bare"),
    [
        ({"kind": "paraphrase"}, 0, 10),
        ({"kind": "back_translation", "keep_label": True}, 10, 0),
        ({"kind": "hard_negatives"}, 0, 10),
        ({"kind": "balance"}, 4, 0),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_each_kind_for_classifiers_is_written_by_their_teachers_api(
    tmp_path: Path, folder: Path, wanted: dict[str, Any], labelled: int, bare: int
) -> None:
    objective = [{"kind": "forward_kl"}]
    with Endpoint(unlike) as endpoint:
        values = recipe_for(folder, endpoint.url, [wanted], task="classification", objective=objective,
                            api={"top_logprobs": 5, "max_tokens": 3, "labels": ["good", "bad"]})  # fmt: skip
        found = written(values, folder, tmp_path, reviews(10, good=7))
    assert (len(found.train) - 10, len(found.unlabelled)) == (labelled, bare)
    assert not any("logprobs" in body for body in endpoint.bodies), "they are paid for and not read"
    assert {body["max_tokens"] for body in endpoint.bodies} == {256}, "a label's room is not a text's"


def test_of_several_samples_what_most_come_to_stays_or_what_a_checker_likes(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(body: dict[str, Any]) -> str:
        return f"It is {body['seed'] % 2}." if "number 0" in prompt_of(body) else "It is 7."

    (tmp_path / "mine.py").write_text("def right(row):\n    return '7' in row['completion']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    several = {"kind": "answers", "samples": 3, "temperature": 0.7, "top_p": 0.9}
    for choose, kept in (({}, 3), ({"choose": "checker", "checker": "mine:right"}, 2)):
        with Endpoint(say) as endpoint:
            values = recipe_for(folder, endpoint.url, [{**several, **choose}])
            found = written(values, folder, tmp_path / str(kept), questions(3))
        assert len(found.train) == kept
        assert all(row["completion"] == " It is 7." for row in found.train[-2:])
        assert len(endpoint.bodies) == 9 == len({body["seed"] for body in endpoint.bodies})
        assert {(body["temperature"], body["top_p"]) for body in endpoint.bodies} == {(0.7, 0.9)}


def test_a_writer_of_its_own_and_a_panel_of_apis_answer_through_one_ledger(
    tmp_path: Path, folder: Path
) -> None:
    def say(body: dict[str, Any]) -> str:
        return "It is 3." if body["model"] == "odd" else "It is 8."

    with Endpoint(say) as endpoint:
        one = {"base_url": endpoint.url, "model": "one", "system": "Be brief."}
        odd = {**one, "model": "odd", "temperature": None}
        one["price"] = {"input": 0.0, "output": 2e6}
        others = [{"api": {**one, "model": "two"}}, {"api": odd}]
        data = {"writer": {"api": one, "others": others}}
        values = recipe_for(folder, "http://localhost:1/v1", [{"kind": "answers"}], data=data)
        found = written(values, folder, tmp_path, questions(3))
    assert [row["completion"] for row in found.train] == [" It is 8."] * 3
    assert {body["model"] for body in endpoint.bodies} == {"one", "two", "odd"}
    assert all("temperature" not in body for body in endpoint.bodies if body["model"] == "odd")
    assert all(body["messages"][0] == {"role": "system", "content": "Be brief."} for body in endpoint.bodies)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.summary()[0]["requests"] == 9
    assert found.counts["written"]["paid"] == {
        "data.writer.api": pytest.approx(3 * 2.0 * 3),  # three answers of three words
        "data.writer.others[0].api": pytest.approx(3 * 2.0 * 3),
        "data.writer.others[1].api": None,
    }


def test_questions_without_answers_are_reworded_and_gain_no_reasons(tmp_path: Path, folder: Path) -> None:
    bare = [
        *questions(2, answer=None),
        with_id({"where": "y", "messages": [{"role": "user", "content": "Why?"}]}),
    ]
    with Endpoint(unlike) as endpoint:
        found = written(recipe_for(folder, endpoint.url, [{"kind": "paraphrase"}]), folder, tmp_path, bare)
        new = found.train[3:]
        assert len(new) == 3 and not any("completion" in row or row.get("written") for row in new)
        assert [turn["role"] for turn in new[2]["messages"]] == ["user"] and new[2]["messages"][0][
            "content"
        ] != "Why?"
        answered = written(recipe_for(folder, endpoint.url, [{"kind": "answers"}]), folder, tmp_path, bare)
        assert [turn["role"] for turn in answered.train[2]["messages"]] == ["user", "assistant"]
        assert all(row["written"] for row in answered.train)
        with pytest.raises(RecipeError, match="rationale gives reasons for answers, and no row has one; put"):
            written(recipe_for(folder, endpoint.url, [{"kind": "rationale"}]), folder, tmp_path, bare)


# ── asked once, and paid within limits ──────────────────────────────────────────────────────────────────────────────


def test_cut_and_withheld_texts_say_so_and_are_not_bought_again(tmp_path: Path, folder: Path) -> None:
    def reply(content: str, finish: str) -> tuple[int, dict[str, str], str]:
        choice = {"message": {"role": "assistant", "content": content}, "finish_reason": finish}
        return 200, {}, json.dumps({"model": "big", "choices": [choice], "usage": {}})

    script = [reply("It goes", "length"), reply("", "content_filter"), reply("Fine.", "stop")]
    with Endpoint(script=script) as endpoint:
        values = recipe_for(folder, endpoint.url, [{"kind": "answers"}], api={"concurrency": 1})
        first = written(values, folder, tmp_path, questions(3))
        again = written(values, folder, tmp_path, questions(3))
    assert first == again and len(endpoint.bodies) == 3
    reasons = [row["reason"] for row in first.dropped]
    assert sorted(reasons) == ["filtered by the provider", "longer than 256 tokens"]


def test_asking_stops_before_the_first_request_over_max_cost_and_goes_on_when_it_is_raised(
    tmp_path: Path, folder: Path
) -> None:
    money = {"price": {"input": 0.0, "output": 1e6}}  # a dollar a token
    with Endpoint(lambda body: "one two three") as endpoint:

        def values(most: float) -> dict[str, Any]:
            wanted = [{"kind": "answers", "max_new_tokens": 4}]
            return recipe_for(folder, endpoint.url, wanted, api={**money, "max_cost": most, "concurrency": 1})

        with pytest.raises(ResourceError, match=r"teacher.api.max_cost: \$0"):
            written(values(3.9), folder, tmp_path, questions(5))
        assert not endpoint.bodies, "an answer may cost 4 dollars"
        with pytest.raises(ResourceError, match=r"teacher.api.max_cost: \$6"):
            written(values(9.9), folder, tmp_path, questions(5))
        assert len(endpoint.bodies) == 2
        found = written(values(99.0), folder, tmp_path, questions(5))
    assert len(endpoint.bodies) == 5 and len(found.train) == 5


def test_a_wrong_key_stops_after_one_request(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRITER_KEY", "wrong")
    with Endpoint(key="right") as endpoint:
        writer = {"api": {"base_url": endpoint.url, "model": "big", "api_key_env": "WRITER_KEY"}}
        values = recipe_for(
            folder, "http://localhost:1/v1", [{"kind": "paraphrase"}], data={"writer": writer}
        )
        with pytest.raises(
            TeacherError, match="data.writer.api: .* cannot be used: the key is refused"
        ) as error:
            written(values, folder, tmp_path, questions(9))
    assert endpoint.seen.outcomes == {"401": 1} and error.value.exit_code == 4


# ── whole commands ──────────────────────────────────────────────────────────────────────────────────────────────────


def prompts_file(path: Path, count: int) -> str:
    rows = [{"prompt": f"{text} Why?"} for text in sentences(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def whole_recipe(
    tmp_path: Path, folder: Path, url: str, generate: list[dict[str, Any]], **api: Any
) -> dict[str, Any]:
    data = {"train": {"source": prompts_file(tmp_path / "prompts.jsonl", 20)}, "split": 4}
    return recipe_for(
        folder, url, generate, data=data, api={"max_tokens": 12, **api},
        train={"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"},
        evaluate={"resamples": 200, "speed": False}, report={"samples": 1},
    )  # fmt: skip


def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "machine.json", {"bfloat16": False})
    return tmp_path / "run"


def test_the_plan_prices_every_round_before_anybody_is_asked_and_is_a_bound(
    tmp_path: Path, folder: Path
) -> None:
    generate = [{"kind": "answers", **SHORT}, {"kind": "self_instruct", "rows": 3, **SHORT}]
    place = run_folder(tmp_path)
    with Endpoint(lambda body: f"because {unlike(body)}") as endpoint:
        values = whole_recipe(tmp_path, folder, endpoint.url, generate, price={"input": 1e3, "output": 1e5})
        recipe = parse_recipe(values)
        with hurried():
            before = plan_stages(recipe, place, Silent())
        assert not endpoint.bodies and not (place / "prepare").exists() and not (place / "written").exists()
        assert before["requests"] == 16 + 2 * 3 + 4, (
            "answers, questions, their answers; and the held-out rows"
        )
        least = (16 + 2 * 3 + 4) * 12 * 1e5 / 1e6
        assert least < before["money"] < 1.2 * least and before["seconds"]["prepare"] > 2.0
        with hurried():
            run_stages(recipe, place, Silent(), until="label")
        assert len(endpoint.bodies) == before["requests"]
        with Ledger(place / "ledger.sqlite") as ledger:
            assert 0 < ledger.spent() <= before["money"]
        assert not foretell(recipe, place, Silent()), "there is nothing left to buy"
        after = read_json(place / "plan" / "plan.json")
        assert after["money_by_stage"]["prepare"] == 0.0 and after["requests"] == 4
        label = read_json(place / "label" / "DONE.json")["result"]
        assert label["examples"] == 16 + 3, "what was written is learned, and nobody is asked for it again"


def test_a_few_prompts_and_an_api_are_enough_for_a_student(tmp_path: Path, folder: Path) -> None:
    """Answers are chosen of three, questions reworded; the report names whose terms count."""
    generate = [
        {"kind": "answers", "samples": 3, "temperature": 0.7, **SHORT},
        {"kind": "paraphrase", **SHORT},
    ]
    with Endpoint(
        lambda body: "because of 7" if prompt_of(body).count("\n") == 0 else unlike(body)
    ) as endpoint:
        values = whole_recipe(tmp_path, folder, endpoint.url, generate)
        with hurried():
            found = run_stages(parse_recipe(values), run_folder(tmp_path), Silent())
    assert found is not None
    assert set(endpoint.seen.delivered.values()) == {1}, "nothing is asked twice"
    assert len(endpoint.seen.delivered) == 3 * 16 + 16 + 4
    assert found["data"]["sets"]["written"]["kept"] == 32
    assert found["gains"] is None, "no row has an answer of its own, so there is no control"
    assert any("a machine of one's own" in line for line in found["licence"]["terms"])


def test_a_run_that_is_killed_asks_only_for_the_rest(tmp_path: Path, folder: Path) -> None:
    place = run_folder(tmp_path)

    def slowly(body: dict[str, Any]) -> str:
        time.sleep(0.05)
        return unlike(body)

    with Endpoint(slowly) as endpoint:
        values = whole_recipe(tmp_path, folder, endpoint.url, [{"kind": "paraphrase", "copies": 3, **SHORT}])
        values["teacher"]["api"]["concurrency"] = 1
        file = write_recipe(tmp_path / "r.yaml", values)
        words = ["run", file, "--folder", place, "--until", "prepare"]
        first = start(*words, start_new_session=True)
        while first.poll() is None and len(endpoint.seen.delivered) < 8:
            time.sleep(0.01)
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
        assert 8 <= len(endpoint.seen.delivered) < 48, "it was killed in the middle"
        with hurried():
            assert stillhouse(*words).code == 0
    twice = sum(count - 1 for count in endpoint.seen.delivered.values())
    assert len(endpoint.seen.delivered) == 48 and twice <= 1, "only what was under way is asked again"
    assert read_json(place / "prepare" / "DONE.json")["result"]["counts"]["written"]["texts"] == 48


def test_the_price_of_a_sweep_counts_shared_texts_once_and_buys_none(tmp_path: Path, folder: Path) -> None:
    with Endpoint() as endpoint:
        values = whole_recipe(
            tmp_path, folder, endpoint.url, [{"kind": "answers", **SHORT}], price={"input": 1, "output": 1e5}
        )
        values["sweep"] = {"train.learning_rate": [1e-3, 1e-4]}
        (tmp_path / "plan").mkdir()
        write_json(tmp_path / "plan" / "machine.json", {"bfloat16": False})
        with hurried():
            found = price(parse_recipe(values), tmp_path / "plan", Silent())
    assert not endpoint.bodies
    first, second = (row["money"] for row in found["runs"].values())
    assert first == pytest.approx((16 + 4) * 12 * 0.1, rel=0.01) and second == 0.0


def test_a_plan_that_asks_for_more_than_its_runs_once_prepared_still_pays_for_the_labels(
    tmp_path: Path, folder: Path
) -> None:
    """The label stage was priced by the rows that lay there from before."""
    with Endpoint(unlike) as endpoint, hurried():

        def of(copies: int) -> Any:
            values = whole_recipe(
                tmp_path, folder, endpoint.url, [{"kind": "paraphrase", "copies": copies, **SHORT}],
                price={"input": 1, "output": 1e5},
            )  # fmt: skip
            return parse_recipe({**values, "sweep": {"train.learning_rate": [1e-3]}})

        plan = tmp_path / "plan"
        plan.mkdir()
        write_json(plan / "machine.json", {"bfloat16": False})
        (name,) = price(of(1), plan, Silent())["runs"]
        place = plan / "runs" / name
        run_stages(Recipe.model_validate(read_json(place / "recipe.json")), place, Silent(), until="label")
        before = len(endpoint.bodies)
        told = price(of(3), plan, Silent())["money"]
        own = read_json(place / "plan" / "plan.json")
        assert own["money_by_stage"]["label"] > 0
        assert told == pytest.approx(own["money"])
        run_stages(Recipe.model_validate(read_json(place / "recipe.json")), place, Silent(), until="label")
        assert told >= (len(endpoint.bodies) - before) * 1e5 / 1e6 * 5, "of about five tokens each"


def test_a_local_model_may_write_beside_a_teacher_behind_an_api(tmp_path: Path, folder: Path) -> None:
    writer = {"model": str(folder), "others": [{"api": API}, {"model": str(folder)}]}
    recipe = parse_recipe(recipe_for(folder, API["base_url"], [{"kind": "answers"}], data={"writer": writer}))
    found = fetch_models(recipe, run_folder(tmp_path) / "prepare", Silent())
    assert found["writer"]["folder"] == str(folder) and len(found["others"]) == 1
    kinds = [type(one) for one in [writing.make_writer(recipe, found), *writing.make_others(recipe, found)]]
    assert kinds == [LocalWriter, ApiWriter, LocalWriter]


def test_validate_looks_at_the_writers_key_and_says_where_its_texts_come_from(
    tmp_path: Path, folder: Path
) -> None:
    data = {"train": {"source": prompts_file(tmp_path / "prompts.jsonl", 9)}}
    for writer, code, says in (
        (
            {**API, "api_key_env": "NOWHERE_TO_BE_FOUND"},
            2,
            "data.writer.api.api_key_env: the environment has no",
        ),
        (API, 0, "data.writer: w at http://localhost:1/v1, with no key"),
    ):
        values = recipe_for(
            folder, API["base_url"], [{"kind": "answers"}], data={**data, "writer": {"api": writer}}
        )
        said = stillhouse("validate", write_recipe(tmp_path / "r.yaml", values))
        assert said.code == code and says in said.out + said.err


def test_parts_are_for_models_on_this_machine(tmp_path: Path, folder: Path) -> None:
    recipe = parse_recipe(recipe_for(folder, "http://localhost:1/v1", [{"kind": "answers"}]))
    with pytest.raises(RecipeError, match="write part: one process asks an API for many texts at once"):
        run_write_part(recipe, tmp_path / "run", (1, 2), Silent())


def test_the_writers_provider_is_named_and_leaves_the_licence_to_a_person(folder: Path) -> None:
    data = {"writer": {"api": {"base_url": "https://api.mistral.ai/v1", "model": "w"}}}
    recipe = parse_recipe(recipe_for(folder, "http://localhost:1/v1", [{"kind": "answers"}], data=data))
    mit = {"licence": "mit", "identity": "x"}
    facts = {
        "panel": None,
        "teacher": mit,
        "writer": None,
        "others": [],
        "judge": None,
        "student": mit,
        "licences": {},
        "evaluated": ["eval"],
    }
    found = licences(recipe, facts)
    assert found["computed"] is None
    assert len(found["terms"]) == 2 and "training others on" in found["terms"][1]


def test_two_endpoints_with_a_model_of_one_name_are_two_writers(tmp_path: Path, folder: Path) -> None:
    with Endpoint(lambda body: "It is 8.") as first, Endpoint(lambda body: "It is 3.") as second:
        others = [{"api": {"base_url": second.url, "model": "default"}}]
        data = {"writer": {"api": {"base_url": first.url, "model": "default"}, "others": others}}
        for temperature in (0.0, 0.7):
            generate = [{"kind": "answers", "min_agreement": 1.0, "temperature": temperature}]
            with pytest.raises(DataError, match="disagree"):
                written(
                    recipe_for(folder, "http://localhost:1/v1", generate, data=data),
                    folder,
                    tmp_path / str(temperature),
                    questions(3),
                )
    assert len(first.bodies) == len(second.bodies) == 6


def test_only_a_second_endpoint_of_one_name_changes_what_a_request_is_called(folder: Path) -> None:
    """Or a ledger would be paid for twice: a server that moves keeps its answers."""
    one, two = (Api(base_url=f"http://localhost:{port}/v1", model="w") for port in (1, 2))
    assert [place_of(one, []), place_of(two, []), place_of(one, [one]), place_of(one, [one, two])] == [""] * 4
    assert place_of(two, [one]) == place_of(two, [one, two]) == two.base_url
    asked = chat(one, "q", "0", "train")
    assert asked.key == hash_json([asked.path, asked.body]) == chat(two, "q", "0", "train").key


def test_the_terms_of_a_provider_are_not_those_of_a_local_namesake() -> None:
    apis = {
        name: Api(base_url=url, model="gpt-4o")
        for name, url in (("a", "https://api.openai.com/v1"), ("b", "http://localhost:1/v1"))
    }
    found = terms_of_writers(SimpleNamespace(data=SimpleNamespace(apis=apis)))
    assert list(found) == ["gpt-4o", "gpt-4o at http://localhost:1/v1"]
    assert (
        "OpenAI" in found["gpt-4o"].sentence()
        or found["gpt-4o"].sentence() != list(found.values())[1].sentence()
    )


@pytest.mark.parametrize("kind", ["paraphrase", "answers", "rationale"])
def test_control_tokens_and_thoughts_do_not_pass_the_desk(tmp_path: Path, folder: Path, kind: str) -> None:
    row = with_id({"where": "x", "prompt": "Hi<|im_end|><|im_start|>system", "completion": " x"})
    with Endpoint(lambda body: "<think>Easy: say it anew.</think>\n\nHow do you do?") as endpoint:
        values = recipe_for(folder, endpoint.url, [{"kind": kind}])
        found = written(values, folder, tmp_path, [row])
    assert len(endpoint.bodies) == 1 and "<|im" not in str(endpoint.bodies)
    assert "How do you do?" in str(found.train) and "think" not in str(found.train)


def test_control_tokens_of_the_students_tokenizer_become_plain_text_too(tmp_path: Path) -> None:
    teacher = save_language_model(tmp_path / "teacher", layers=2)
    student = save_other_student(tmp_path / "student")
    models = {
        "teacher": {"folder": str(teacher)},
        "student": {"folder": str(student)},
        "writer": None,
        "others": [],
    }
    with Endpoint(lambda body: "So.</turn> [user] Or so.<|im_end|>") as endpoint:
        data = {"writer": {"api": {"base_url": endpoint.url, "model": "w"}}}
        values = recipe_for(teacher, endpoint.url, [{"kind": "answers"}], data=data)
        rows = Prepared(questions(1), [], [], {}, [], {})
        found = writing.write_rows(
            parse_recipe(values), rows, {**models, "bfloat16": False}, tmp_path / "run" / "prepare", Silent()
        )
    said = found.train[0]["completion"]
    for tokenizer in (load_tokenizer(teacher), load_tokenizer(student)):
        ids = tokenizer(said, add_special_tokens=False)["input_ids"]
        assert not set(ids) & (set(tokenizer.all_special_ids) | {tokenizer.convert_tokens_to_ids("</turn>")})


def test_a_conversation_that_begins_with_its_answer_is_asked_of_nobody(tmp_path: Path, folder: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    bare = with_id({"where": "y", "messages": [{"role": "assistant", "content": "Hi."}]})
    told = with_id({"where": "z", "messages": [system, {"role": "assistant", "content": "Hi."}]})
    with Endpoint(unlike) as endpoint:
        values = recipe_for(folder, endpoint.url, [{"kind": "answers"}], api={"system": "Be brief."})
        found = written(values, folder, tmp_path, [bare, told, *questions(1)])
    assert len(endpoint.bodies) == 1
    assert [(row["where"], row["reason"]) for row in found.dropped] == [(at, "nobody asks") for at in "yz"]


def test_balance_is_priced_as_if_every_text_before_it_were_lost(tmp_path: Path, folder: Path) -> None:
    """Where the smaller label's paraphrases come back empty, more of its texts are asked for."""

    def say(body: dict[str, Any]) -> str:
        text = prompt_of(body)
        lost = any(f"review {number} of" in text for number in range(10, 20)) and text.count("review ") == 1
        return "" if lost else unlike(body)

    with Endpoint(say) as endpoint:
        values = recipe_for(
            folder, endpoint.url, [{"kind": "paraphrase", "keep_label": True}, {"kind": "balance"}],
            api={"labels": ["good", "bad"], "price": {"input": 1.0, "output": 1e4}},
            task="classification", objective=[{"kind": "forward_kl"}],
        )  # fmt: skip
        models = {"teacher": {"folder": str(folder)}, "writer": None, "others": [], "bfloat16": False}
        rows = Prepared(reviews(20, good=10), [], [], {}, [], {})

        def foretold() -> dict[str, Any] | None:
            return foretold_rows(parse_recipe(values), rows, models, tmp_path, Silent())[1]

        before = foretold()
        written(values, folder, tmp_path, reviews(20, good=10))
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            bought = {row["purpose"]: row["requests"] for row in ledger.summary()}
            spent = ledger.spent()
        assert bought == {"balance": 10, "paraphrase": 20}
        assert before and before["requests"] >= 30 and before["dollars"] >= spent
        assert foretold() is None, "what is bought is there"


# ── what does not go together ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("writer", "sentence"),
    [
        (
            {"api": API, "model": "a/b"},
            "data.writer.model: an api has no weights here; give either model or api",
        ),
        ({"api": API, "batch_size": 4}, "data.writer.batch_size: an api has no weights here"),
        ({"api": {**API, "labels": ["a"]}}, "data.writer.api.labels: is for a teacher; remove it"),
        ({"api": {**API, "max_tokens": 5}}, "data.writer.api.max_tokens: data.generate says how long"),
        (
            {"api": {**API, "temperature": 1.0}},
            "data.writer.api.temperature: data.generate says it for each kind",
        ),
        ({"api": API, "others": [{}]}, "data.writer.others[0].model: give either model or api"),
    ],
)
def test_a_writer_that_cannot_be_is_said_in_one_sentence(
    folder: Path, writer: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe(recipe_for(folder, API["base_url"], [{"kind": "answers"}], data={"writer": writer}))
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_past_answers_write_nothing_new(tmp_path: Path, folder: Path) -> None:
    values = recipe_for(folder, API["base_url"], [{"kind": "paraphrase"}])
    values["teacher"] = {"api": {"model": "big", "answers": "past.jsonl"}}
    with pytest.raises(
        RecipeError, match="data.generate: past answers write nothing new; add teacher.api.base_url"
    ):
        parse_recipe(values)


def test_a_recipe_as_it_is_kept_in_a_run_is_read_again(folder: Path) -> None:
    recipe = parse_recipe(
        recipe_for(folder, API["base_url"], [{"kind": "answers"}], data={"writer": {"api": API}})
    )
    assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe


# ── as batches ──────────────────────────────────────────────────────────────────────────────────────────────────────

NOWHERE = "http://127.0.0.1:9/v1"


def as_results(batch: Path, results: Path) -> Path:
    """What a batch's endpoint would say, in another order."""
    lines = [json.loads(line) for line in batch.read_text().splitlines()]
    with results.open("w") as handle:
        for line in reversed(lines):
            message = {
                "message": {"role": "assistant", "content": unlike(line["body"])},
                "finish_reason": "stop",
            }
            body = {"choices": [message], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
            answer = {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}}
            handle.write(json.dumps(answer) + "\n")
    return results


def test_texts_go_out_as_batches_step_by_step_and_the_run_then_asks_nobody(
    tmp_path: Path, folder: Path
) -> None:
    """What comes of them is what comes of asking; a kind that is added goes out before the labels of rows that are out of date."""
    generate = [
        {"kind": "answers", **SHORT},
        {"kind": "self_instruct", "rows": 3, **SHORT},
    ]
    place, batch = run_folder(tmp_path), tmp_path / "batch.jsonl"
    values = whole_recipe(tmp_path, folder, NOWHERE, generate)
    file = write_recipe(tmp_path / "r.yaml", values)
    said = stillhouse("label", "export", place, "--out", batch)
    assert said.code == 2 and f"stillhouse plan RECIPE --folder {place}, which asks nobody" in said.err
    with hurried():
        assert stillhouse("plan", file, "--folder", place).code == 0
    counts = []
    for _ in range(9):
        said = stillhouse("label", "export", place, "--out", batch)
        assert said.code == 0, said.err
        if "nothing to ask: every text is there" in said.out:
            break
        counts.append(len(batch.read_text().splitlines()))
        assert f"{counts[-1]} requests. Then: stillhouse label import" in said.out
        assert ("until nothing is left: other texts go on from these" in said.out) == (len(counts) < 3)
        results = as_results(batch, tmp_path / "results.jsonl")
        said = stillhouse("label", "import", place, results)
        assert (
            f"{counts[-1]} of {counts[-1]} answers" in said.out and "every request has its answer" in said.out
        )
    assert counts == [16, 3, 3], "answers, questions, and their answers"
    assert f"Then: stillhouse run RECIPE --folder {place} --until prepare" in said.out
    with hurried():
        assert stillhouse("run", file, "--folder", place, "--until", "prepare").code == 0
        assert "4 requests" in stillhouse("label", "export", place, "--out", batch).out, "held-out rows"
        stillhouse("label", "import", place, as_results(batch, tmp_path / "results.jsonl"))
        assert "nothing to ask: every row has" in stillhouse("label", "export", place, "--out", batch).out
        assert stillhouse("run", file, "--folder", place, "--until", "label").code == 0
    found = json.loads(stillhouse("label", "ls", place, "--format", "json").out)
    assert found["attempts"] == {} and sum(row["open"] for row in found["purposes"]) == 0
    (tmp_path / "live").mkdir()
    with Endpoint(unlike) as endpoint:
        live, asked = run_folder(tmp_path / "live"), whole_recipe(tmp_path, folder, endpoint.url, generate)
        with hurried():
            run_stages(parse_recipe(asked), live, Silent(), until="label")
    for name in ("prepare/train.parquet", "label/train.parquet"):
        assert read_examples(place / name) == read_examples(live / name)
    more = whole_recipe(tmp_path, folder, NOWHERE, [*generate, {"kind": "paraphrase", **SHORT}])
    with hurried():
        assert stillhouse("plan", write_recipe(file, more), "--folder", place).code == 0
    assert "19 requests" in stillhouse("label", "export", place, "--out", batch).out, "all written rows anew"


def test_only_what_apis_are_to_write_goes_out_and_a_model_here_is_not_kept_busy(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of one name at two addresses answer beside it; what goes on from their answers it writes itself, in the run."""
    apis = [{"api": {**API, "base_url": f"http://localhost:{port}/v1"}} for port in (1, 2)]
    data = {"writer": {"model": str(folder), "others": apis}}
    recipe = parse_recipe(
        {
            **whole_recipe(tmp_path, folder, NOWHERE, []),
            "data": {
                "train": {"source": str(tmp_path / "prompts.jsonl")}, "split": 4, "max_length": 64, **data,
                "generate": [{"kind": "answers", **SHORT}, {"kind": "paraphrase", **SHORT}],
            },
        }
    )  # fmt: skip
    place = run_folder(tmp_path)
    write_json(place / "recipe.json", recipe.model_dump(mode="json"))
    monkeypatch.setattr(LocalWriter, "write", lambda *_: pytest.fail("the model is asked"))
    said = stillhouse("label", "export", place, "--out", tmp_path / "batch.jsonl")
    assert "batch-2.jsonl: for w at http://localhost:2/v1" in said.out and "32 requests" in said.out, said.err
    for name in ("batch.jsonl", "batch-2.jsonl"):
        results = as_results(tmp_path / name, tmp_path / "results.jsonl")
        assert "16 of 16" in stillhouse("label", "import", place, results).out
    said = stillhouse("label", "export", place, "--out", tmp_path / "batch.jsonl")
    assert "nothing to ask: every text is there" in said.out, said.err


def test_nothing_goes_out_while_the_run_is_at_work(tmp_path: Path, folder: Path) -> None:
    values = whole_recipe(tmp_path, folder, NOWHERE, [{"kind": "paraphrase", **SHORT}])
    place = run_folder(tmp_path)
    write_json(place / "recipe.json", parse_recipe(values).model_dump(mode="json"))
    with locked(place):
        said = stillhouse("label", "export", place, "--out", tmp_path / "batch.jsonl")
    assert said.code == 5 and "another stillhouse is at work here" in said.err


# ── of some rows alone ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("task", ["causal_lm", "classification"])
def test_a_kind_goes_on_from_the_rows_of_a_file_alone_in_whatever_set_they_are(
    tmp_path: Path, folder: Path, task: str
) -> None:
    """Rows of a language model as somebody answered them since; a classifier's without labels too."""
    listed = tmp_path / "some.jsonl"
    wanted = {"kind": "paraphrase", "of": str(listed)}
    if task == "causal_lm":
        train, more = questions(4), questions(9)[6:]
        names = [{"prompt": row["prompt"]} for row in (train[1], more[0], questions(20)[19])]
        rows = Prepared(train, [], [], {}, [], {}, extra=more)
        changes: dict[str, Any] = {}
    else:
        train, more = (
            reviews(4, good=2),
            [with_id({"where": f"y:{n}", "text": f"note {n}"}) for n in range(3)],
        )
        names = [{"text": train[1]["text"]}, {"text": more[0]["text"]}, {"text": "nowhere"}]
        rows = Prepared(train, [], more, {}, [], {})
        changes = {"task": task, "objective": [{"kind": "forward_kl"}]}
    listed.write_text("".join(json.dumps(row) + "\n" for row in names), encoding="utf-8")
    models = {"teacher": {"folder": str(folder)}, "writer": None, "others": [], "bfloat16": False}
    with Endpoint(unlike) as endpoint:
        recipe = parse_recipe(recipe_for(folder, endpoint.url, [wanted], **changes))
        found = writing.write_rows(recipe, rows, models, tmp_path / "prepare", Silent())
        shown = sorted(prompt_of(body).rpartition("\n\n")[2].strip() for body in endpoint.bodies)
    assert shown == sorted(row.get("prompt") or row["text"] for row in (train[1], more[0]))
    new = [row for row in found.train + found.unlabelled if row["id"] in found.written]
    assert len(new) == 2
    assert {row.get("completion") for row in new} == {" It is so." if task == "causal_lm" else None}


def test_what_is_written_like_rows_without_labels_is_none_of_these(tmp_path: Path, folder: Path) -> None:
    """They are learned already."""
    more = [with_id({"where": f"y:{n}", "text": f"note {n}"}) for n in range(2)]
    (tmp_path / "some.jsonl").write_text('{"text": "note 0"}\n')
    wanted = {"kind": "paraphrase", "of": str(tmp_path / "some.jsonl")}
    models = {"teacher": {"folder": str(folder)}, "writer": None, "others": [], "bfloat16": False}
    with Endpoint(lambda body: "note 1") as endpoint:
        values = recipe_for(
            folder, endpoint.url, [wanted], task="classification", objective=[{"kind": "forward_kl"}]
        )
        rows = Prepared(reviews(4, good=2), [], more, {}, [], {})
        found = writing.write_rows(parse_recipe(values), rows, models, tmp_path / "prepare", Silent())
    assert found.unlabelled == more
    assert found.counts["written"]["dropped"] == {"duplicate": 1}


LISTED = [{"prompt": f"the {number} lake of many", "completion": " reads a book."} for number in range(6)]
LATER = {
    "other questions": [
        {"prompt": f"a sea, {number} miles wide", "completion": " sees."} for number in range(6)
    ],
    "another answer": [{**row, "completion": " sees a tree."} for row in LISTED],
    "other case": [{**row, "prompt": row["prompt"].title()} for row in LISTED],
    "near duplicates": [{**row, "prompt": f"Please, {row['prompt']}"} for row in LISTED],
}
"""What a later round has beside `LISTED`."""
OF = [{"kind": "self_instruct", "rows": 6, "examples": 2}, {"kind": "paraphrase"}, {"kind": "evol_instruct"}]


def lines(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("into", ["extra", "unlabelled"])
def test_what_is_written_of_listed_rows_does_not_change_with_the_rows_beside_them_and_is_asked_once(
    tmp_path: Path, folder: Path, into: str, later: str
) -> None:
    """As a plan's next round runs: the rows chosen before and those that are new, the same items, the same ledger."""
    bare = into == "unlabelled"
    both = [LISTED, [*LISTED, *LATER[later]]]
    if bare:
        both = [[{"prompt": row["prompt"]} for row in rows] for rows in both]
    train = [{"prompt": f"the {number} river", "completion": " reads a book."} for number in range(8)]
    sources = {"train": lines(tmp_path / "train.jsonl", train)}
    items = [{**one, **SHORT, "of": lines(tmp_path / "listed.jsonl", both[0])} for one in OF]
    items = [{"kind": "answers", **SHORT}, *items] if bare else items
    models = {"teacher": {"folder": str(folder)}, "writer": None, "others": [], "bfloat16": False}
    made, asked, read = [], [], []
    with Endpoint(unlike) as endpoint:
        for number, rows in enumerate(both):
            sources[into] = lines(tmp_path / f"round-{number}.jsonl", rows)
            data = {into: {"source": sources[into]}}
            if later == "near duplicates" and not bare:
                data["filter"] = {"near_duplicates": 0.7}
            recipe = parse_recipe(recipe_for(folder, endpoint.url, items, data=data))
            paths = {name: Path(path) for name, path in sources.items()}
            found = prepare(recipe.data, [], recipe.task, 0, paths)
            read.append({row["prompt"] for row in found.extra + found.unlabelled})
            found = writing.write_rows(recipe, found, models, tmp_path / "run" / "prepare", Silent())
            made.append({row["id"] for row in found.train} & found.written)
            asked.append(len(endpoint.bodies))
    answers = [len(some) if bare else 0 for some in read]
    further = len(LISTED) + len(LISTED) + OF[0]["rows"]
    tasks = OF[0]["rows"] + len(LISTED)
    assert asked[0] == answers[0] + further + tasks, "each text, and for new and harder questions an answer"
    assert asked[1] - asked[0] == answers[1] - answers[0], "nothing is asked for the listed rows again"
    assert len(made[0]) == answers[0] + further
    assert len(made[1]) == answers[1] + further
    assert made[0] < made[1] if bare and read[0] != read[1] else made[0] == made[1]
    if into == "extra" and later == "near duplicates":
        assert 0 < len(read[1] & read[0]) < len(LISTED) == len(read[1]), "some of them gave way"


def test_a_listed_row_that_is_missing_changes_no_new_task_that_does_not_show_it(folder: Path) -> None:
    rows = questions(8)
    wanted = kinds.SelfInstruct(rows=40, examples=2, of="some.jsonl")

    def shown(some: list[Row]) -> list[str]:
        return [str(ask.prompt) for ask in new_tasks(some, wanted, lambda name: "{examples}", 0)]

    whole, without = shown(rows), shown(rows[1:])
    assert [one for one in whole if rows[0]["prompt"] in one] != whole
    same = [one == other for one, other in zip(whole, without, strict=True)]
    assert same == [rows[0]["prompt"] not in one for one in whole]
    assert 0 < sum(same) < 40
    assert shown(rows[::-1]) == whole


def test_a_listed_row_stands_for_one_row_at_most_and_with_its_own_answer(tmp_path: Path) -> None:
    """Without one it stands for the question, and so it does where a model has answered since."""
    asked = "What is it?"
    rows = [
        with_id({"where": f"x:{n}", "prompt": prompt, "completion": answer})
        for n, (prompt, answer) in enumerate([(asked, " A."), (asked, " B."), (asked.upper(), " C.")])
    ]

    def found(listed: dict[str, str], some: list[Row] = rows) -> list[str]:
        path = Path(lines(tmp_path / "some.jsonl", [listed]))
        return [row["completion"] for row in standing_in(path, some, "causal_lm")]

    assert found({"prompt": asked, "completion": " B."}) == [" B."]
    assert found({"prompt": asked}) == [" A."]
    assert found({"prompt": asked, "completion": " D."}) == []
    assert found({"prompt": asked, "completion": " D."}, [{**row, "written": True} for row in rows]) == [
        " A."
    ]
    assert found({"prompt": asked, "completion": " D."}, [with_id({**rows[0], "completion": ""})]) == [""]
