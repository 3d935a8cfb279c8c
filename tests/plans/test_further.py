"""Rounds in which somebody writes rows like the chosen ones: of which rows, how many, each once, and at what price."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import tiny
from endpoint import Endpoint, prompt_of
from plans.kitchen import always_better, classifier, trained
from stillhouse.asking import Answer, Ledger, chat
from stillhouse.errors import RecipeError
from stillhouse.files import hash_json, read_json, read_jsonl, write_json
from stillhouse.plans import price
from stillhouse.plans.bench import Bench
from stillhouse.plans.check import with_rows
from stillhouse.plans.failing import fresh_rows
from stillhouse.plans.further import writing_takes
from stillhouse.plans.planned import Planned, plain
from stillhouse.plans.rounds import _Rounds, hard_only
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.steps import unwritten
from stillhouse.steps.evaluating import OPENING
from stillhouse.teachers.api_writer import ApiWriter
from stillhouse.teachers.writer import LocalWriter
from typed import Said, hurried, stillhouse, write_recipe

PRICE = {"input": 0.0, "output": 10_000.0}
"""Of a token that is written: a cent."""
TOKENS = 6
"""That a text may have."""
WRITE: list[dict[str, Any]] = [
    {"kind": "self_instruct", "rows": 3, "examples": 2, "max_new_tokens": TOKENS},
    {"kind": "paraphrase", "max_new_tokens": TOKENS},
]
TEXTS = 3 + 3 + 4
"""Of a round of four rows: three tasks, their answers, and each row in other words."""
NEW = 3 + 4
"""Rows that they make."""


def unlike(body: dict[str, Any]) -> str:
    """A text of its own for each request."""
    return f"what of {hash_json(body)[:12]}"


def lines(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def talker(folder: Path, url: str, plan: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Plain values of a language model's recipe; its teacher is on this machine, and an API writes for its rounds alone."""
    values = tiny.language_recipe(folder)
    first, later = (
        [{"prompt": f"the {number} river", "completion": " reads a book."} for number in numbers]
        for numbers in (range(24), range(24, 44))
    )
    pool = {"source": lines(folder / "pool.jsonl", later)}
    api = {"base_url": url, "model": "big", "price": PRICE}
    return {
        **values,
        "data": {
            "train": {"source": lines(folder / "qa.jsonl", first)}, "split": 8, "max_length": 64, "writer": {"api": api},
        },
        "train": {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": {"resamples": 200, "hard_only": False, "speed": False},
        "report": {"samples": 0},
        "plan": {"kind": "rounds", "pool": pool, "rows": 4, "most": 2, "write": WRITE, **(plan or {})},
        **changes,
    }  # fmt: skip


def command(name: str, plain: dict[str, Any], folder: Path, *more: str) -> Said:
    with hurried(), always_better():
        return stillhouse(name, write_recipe(folder.with_suffix(".yaml"), plain), "--folder", folder, *more)


def result(folder: Path, run: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(folder / "runs" / run / "prepare" / "DONE.json")["result"]
    return found


# ── what is written ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_are_written_like_those_of_each_round_and_of_its_control_each_once_at_the_price_that_was_said(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "rounds"
    with Endpoint(unlike) as endpoint:
        values = talker(tmp_path, endpoint.url)
        priced = command("plan", values, folder, "--format", "json")
        assert priced.code == 0, priced.err
        assert not endpoint.seen.delivered, "a forecast asks nobody"
        said = command("run", values, folder)
        assert said.code == 0, said.err
        assert set(endpoint.seen.delivered.values()) == {1}
        shown = [prompt_of(body) for body in endpoint.bodies]
    own = {
        name: {row["prompt"] for row in read_jsonl(folder / "chosen" / f"{name}-alone.jsonl")}
        for name in ("round-1", "random-1", "round-2", "random-2")
    }
    assert [len(some) for some in own.values()] == [4] * 4
    assert not own["round-1"] & own["round-2"]
    chosen = set.union(*own.values())
    reworded = [prompt.rpartition("\n\n")[2].strip() for prompt in shown if "in other words" in prompt]
    assert sorted(reworded) == sorted(chosen), "each chosen row once, and no other"
    for prompt in shown:
        if "Here are some tasks" in prompt:
            tasks = {line.partition(". ")[2] for line in prompt.splitlines() if line[:2] in ("1.", "2.")}
            assert any(tasks <= some for some in own.values()), "of one round's rows"
    counts = {name: result(folder, name)["counts"] for name in ("round-0", *own)}
    assert "written" not in counts["round-0"]
    for kind in ("round", "random"):
        for number in (1, 2):
            found = counts[f"{kind}-{number}"]["written"]
            assert (found["texts"], found["kept"]) == (number * TEXTS, number * NEW), found["dropped"]
    money = json.loads(priced.out)
    assert money["runs"]["writing rows"]["money"] == pytest.approx(4 * TEXTS * TOKENS * 0.01)
    assert money["money"] == pytest.approx(4 * TEXTS * TOKENS * 0.01)
    assert not any("writing" in note for note in money["notes"])
    with Ledger(folder / "ledger.sqlite") as ledger:
        assert 0 < ledger.spent() <= money["money"]
    about = next(
        row["about"] for row in read_json(folder / "results.json")["runs"] if row["name"] == "round-2"
    )
    assert "and others written like them" in about


@pytest.mark.parametrize("killed", ["while a round writes", "while a control learns"])
def test_a_plan_that_is_killed_between_its_rounds_goes_on_without_asking_again(
    tmp_path: Path, killed: str
) -> None:
    folder = tmp_path / "rounds"
    real, calls = ApiWriter.texts, []

    def breaking(self: Any, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 8:  # of three for each run, the second of the second round
            raise KeyboardInterrupt
        return real(self, *args)

    with Endpoint(unlike) as endpoint:
        values = talker(tmp_path, endpoint.url)
        if killed == "while a round writes":
            with mock.patch.object(ApiWriter, "texts", breaking):
                command("run", values, folder)
        else:
            with trained(killed_at=3):
                command("run", values, folder)
        before = set(endpoint.seen.delivered)
        assert before
        assert not (folder / "results.json").exists()
        said = command("run", values, folder)
        assert said.code == 0, said.err
        assert set(endpoint.seen.delivered.values()) == {1}
        assert set(endpoint.seen.delivered) > before
        asked = len(endpoint.seen.delivered)
        again = command("run", values, folder)
        assert again.code == 0, again.err
        assert len(endpoint.seen.delivered) == asked
    assert result(folder, "random-2")["counts"]["written"]["kept"] == 2 * NEW


def test_what_is_written_like_chosen_rows_is_kept_from_the_held_out_ones(tmp_path: Path) -> None:
    """Held-out rows are the student's examination, whoever writes them."""
    folder = tmp_path / "rounds"
    with Endpoint(lambda body: "the 3 River") as endpoint:
        values = talker(tmp_path, endpoint.url, {"most": 1, "write": WRITE[1:]})
        held = [{"prompt": "the 3 river", "completion": " reads a book."}]
        values["data"]["eval"] = {"source": lines(tmp_path / "eval.jsonl", held)}
        said = command("run", values, folder)
        assert said.code == 0, said.err
    counts = result(folder, "round-1")["counts"]["written"]
    assert (counts["kept"], counts["dropped"]) == (0, {"also in eval": 4})


def test_questions_that_the_teacher_answers_are_gone_on_from_with_their_answers(tmp_path: Path) -> None:
    folder = tmp_path / "rounds"
    answers = {"max_new_tokens": TOKENS}
    with Endpoint(unlike) as endpoint:
        values = talker(tmp_path, endpoint.url, {"most": 1, "write": WRITE[1:], "answers": answers})
        priced = command("plan", values, folder, "--format", "json")
        assert json.loads(priced.out)["money"] == pytest.approx(2 * 8 * TOKENS * 0.01), (
            "answers are bought too"
        )
        said = command("run", values, folder)
        assert said.code == 0, said.err
        assert set(endpoint.seen.delivered.values()) == {1}
    assert result(folder, "round-1")["counts"]["written"]["kept"] == 4 + 4


def test_a_teacher_on_this_machine_writes_each_text_once_in_the_whole_plan(tmp_path: Path) -> None:
    """One that has learned nothing: drawn so that some texts end."""
    values = talker(
        tmp_path, "", {"write": [{"kind": "paraphrase", "max_new_tokens": 60, "temperature": 1.5}]}
    )
    values["data"]["writer"] = None
    shown: list[str] = []
    real = LocalWriter.write

    def counting(self: Any, prompts: Any, *rest: Any) -> Any:
        shown.extend(prompt[-1]["content"] for prompt in prompts)
        return real(self, prompts, *rest)

    folder = tmp_path / "rounds"
    with mock.patch.object(LocalWriter, "write", counting):
        said = command("run", values, folder)
    assert said.code == 0, said.err
    own = [{row["prompt"] for row in read_jsonl(path)} for path in folder.glob("chosen/*-alone.jsonl")]
    assert sorted(prompt.rpartition("\n\n")[2].strip() for prompt in shown) == sorted(set.union(*own))
    assert result(folder, "round-2")["counts"]["written"]["texts"] == 8


def test_what_a_model_on_this_machine_writes_in_all_rounds_is_foretold_by_its_own_pace(
    tmp_path: Path,
) -> None:
    """Batches of 16, a second for reading one and a tenth for each further token: 3 tasks, 3 answers, 4 rows in other words."""
    values = talker(tmp_path, "")
    values["data"]["writer"] = None
    measured = {"runs": {}, "total_seconds": 1.0, "money": 0.0}
    tried: list[int] = []

    def pace(writer: Any, prompts: Any, sampling: Any) -> tuple[float, float]:
        tried.append(len(prompts))
        return 1.0, 0.1

    with (
        mock.patch.object(price, "price_runs", return_value=measured),
        mock.patch.object(price, "_looking", return_value=2.0),
        mock.patch.object(unwritten, "pace_of_texts", pace),
    ):
        found = price.price(parse_recipe(values), tmp_path, Silent())
    assert tried == [3, 3, 4], "the writer is tried once for each way of choosing tokens"
    reading, writing = 3 * 1.0, 3 * (TOKENS - 1) * 0.1
    row = found["runs"]["writing rows"]
    assert row["seconds"] == pytest.approx(4 * (OPENING + reading + writing), abs=0.1)
    assert (row["money"], found["money"], found["notes"]) == (0.0, 0.0, [])
    assert found["total_seconds"] == pytest.approx(1.0 + 2.0 + row["seconds"], abs=0.1)


# ── classifiers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def reads(body: dict[str, Any]) -> str:
    """A label, or, where a text is to be said in other words, a text."""
    if "in other words" in prompt_of(body):
        return f"a good {hash_json(body)[:8]}"
    return "good" if prompt_of(body).count("good") > prompt_of(body).count("bad") else "bad"


def judged(folder: Path, url: str, **plan: Any) -> dict[str, Any]:
    """Plain values of a classifier whose teacher, behind an API, labels and writes."""
    tiny.save_classifier(folder / "student", layers=1)
    tiny.labelled_file(folder / "rows.csv", rows=30)
    pool = tiny.labelled_file(folder / "pool.csv", rows=20, seed=9)
    return {
        "name": "judged", "task": "classification", "student": {"model": str(folder / "student")},
        "teacher": {"api": {"base_url": url, "model": "big", "price": PRICE, "max_tokens": 1}},
        "data": {"train": {"source": str(folder / "rows.csv")}, "split": 10, "max_length": 32},
        "objective": [{"kind": "forward_kl"}],
        "train": {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": {"resamples": 200, "speed": False}, "report": {"samples": 0},
        "plan": {
            "kind": "rounds", "by": "uncertainty", "rows": 4, "most": 1, "pool": {"source": str(pool)}, "write": WRITE[1:], **plan,
        },
    }  # fmt: skip


def test_a_classifiers_teacher_labels_what_it_wrote_and_hard_targets_alone_learn_none_of_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "rounds"
    with Endpoint(reads) as endpoint:
        values = judged(tmp_path, endpoint.url)
        priced = command("plan", values, folder, "--format", "json")
        assert priced.code == 0, priced.err
        said = command("run", values, folder)
        assert said.code == 0, said.err
        assert set(endpoint.seen.delivered.values()) == {1}
        asked = len(endpoint.seen.delivered)
    chosen = {row["text"] for name in ("round-1", "random-1") for row in read_jsonl(folder / "chosen" / f"{name}.jsonl")}  # fmt: skip
    assert asked == 30 + 3 * len(chosen), "a row, its text in other words, and the label of each"
    assert json.loads(priced.out)["money"] == pytest.approx(0.01 * (30 + 2 * (4 + 4) + 2 * 4 * TOKENS))
    assert result(folder, "round-1")["unlabelled"] == 8
    assert result(folder, "hard-only")["unlabelled"] == 0
    assert "written" not in result(folder, "hard-only")["counts"]


def test_hard_targets_alone_have_what_was_written_with_answers(tmp_path: Path) -> None:
    recipe = parse_recipe(talker(tmp_path, "http://localhost:1/v1"))
    values = with_rows(recipe, plain(recipe), {"source": "/chosen"}, ["/one", "/two"])
    made = parse_recipe(hard_only(recipe, 2, Planned("round-2", values, "")).values).data
    assert [(one.kind, one.of) for one in made.generate] == [  # type: ignore[union-attr]
        ("self_instruct", "/one"), ("paraphrase", "/one"), ("self_instruct", "/two"), ("paraphrase", "/two"),
    ]  # fmt: skip
    assert parse_recipe(plain(recipe)).data.writer is None, "nobody writes before any round"


# ── the budget ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_budget_counts_what_writing_costs_at_most_and_then_what_it_did_cost(tmp_path: Path) -> None:
    """Round 0: thirty labels for a cent each.  A round and its control: four rows each, with as many in other words."""
    recipe = parse_recipe(judged(tmp_path, "http://localhost:1/v1", budget={"dollars": 0.93}))
    written = writing_takes(recipe, tmp_path / "runs" / "round-0", Silent())
    assert written is not None
    assert (written["requests"], written["dollars"]) == (4, pytest.approx(4 * TOKENS * 0.01))
    api = recipe.teacher.api
    assert api is not None
    with Ledger(tmp_path / "ledger.sqlite") as ledger:

        def pay(count: int) -> None:
            some = [
                chat(api, f"{count} {number}", row=str(number), purpose="train") for number in range(count)
            ]
            ledger.plan(some)
            for one in some:
                ledger.keep(one, Answer("answered", "good", "", (), 1, 1, 0.01), "here")
                ledger.end(ledger.begin(one), 0.1, "answered", 0.01)

        pay(30)
        facts = {"sets": {"train": {"rows": 20}, "eval": {"rows": 10}}, "evaluated": ["eval"]}
        write_json(tmp_path / "runs" / "round-0" / "prepare" / "DONE.json", {"result": facts})
        going = _Rounds(recipe, recipe.plan, Bench(tmp_path, Silent()))  # type: ignore[arg-type]
        assert going._will_cost(1) == pytest.approx(2 * (8 * 0.01 + 4 * TOKENS * 0.01))
        assert going._over_dollars(1, 0.95) is None
        assert "would cost about $0.6400: $0.3000 of the budget of $0.93" in str(going._over_dollars(1, 0.93))
        write_json(tmp_path / "chosen" / "round-1.json", {"keys": [], "paid": 0.3})
        pay(24)
        assert going._will_cost(2) == pytest.approx(0.24)
        write_json(tmp_path / "chosen" / "round-1.json", {"keys": [], "paid": 0.54})
        a_row = 0.54 / (30 + 2 * 4)
        assert going._will_cost(2) == pytest.approx(2 * 4 * a_row), "a round whose texts were bought already"


# ── what makes no sense ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("task", "write", "said"),
    [
        ("classification", {"kind": "paraphrase"}, "plan.write: a classifier cannot write; name a language model in data.writer.model"),
        ("classification", {"kind": "paraphrase", "keep_label": True}, "the chosen rows have no label to keep; remove keep_label"),
        ("classification", {"kind": "hard_negatives"}, "plan.write"),
        ("causal_lm", {"kind": "paraphrase", "of": "rows.jsonl"}, "the rows that it goes on from are those of each round; remove `of`"),
        ("causal_lm", {"kind": "answers"}, "plan.write"),
        ("masked_lm", {"kind": "paraphrase"}, "plan: rounds of task: masked_lm read plain text as it is"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_one_sentence_before_anything_is_loaded(
    tmp_path: Path, task: str, write: dict[str, Any], said: str
) -> None:
    plan = {"kind": "rounds", "pool": {"source": str(tmp_path / "rows.csv")}, "write": [write]}
    if task == "classification":
        values = classifier(tmp_path, plan=plan)
    elif task == "masked_lm":
        values = tiny.masked_recipe(tmp_path, plan=plan)
    else:
        values = talker(tmp_path, "http://localhost:1/v1", {"write": [write]})
    found = stillhouse("validate", write_recipe(tmp_path / "r.yaml", values))
    assert found.code == 2
    assert said in " ".join(found.err.split())


def test_plain_text_is_no_task_that_others_could_be_like(tmp_path: Path) -> None:
    values = talker(tmp_path, "http://localhost:1/v1")
    values["plan"]["pool"] = {"source": lines(tmp_path / "text.jsonl", [{"text": "the river"}])}
    with pytest.raises(
        RecipeError, match=r"plan.write: self_instruct needs questions, and the rows are plain text"
    ):
        fresh_rows(parse_recipe(values), Silent())
    values["plan"]["write"] = WRITE[1:]
    assert [row["text"] for row in fresh_rows(parse_recipe(values), Silent())] == ["the river"]
