"""Rounds: whose answers are looked at, who writes the new ones, and what ends them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tokenizers import decoders

from plans.kitchen import always_better, classifier
from stillhouse.data.encode import IGNORED, Example
from stillhouse.data.masking import unmasked
from stillhouse.errors import RecipeError
from stillhouse.files import read_json, read_jsonl, write_json
from stillhouse.plans import price, rounds
from stillhouse.plans.bench import Bench
from stillhouse.plans.check import with_rows
from stillhouse.plans.failing import Fresh, choosing_takes, readable, worst_first
from stillhouse.plans.planned import Planned, plain
from stillhouse.plans.rounds import _Rounds
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.steps.evaluating import TOGETHER
from stillhouse.tasks import make_task
from stillhouse.tasks.writing import SLOTS
from stillhouse.teachers.writer import LocalWriter
from tiny import (
    encoder_tokenizer,
    labelled_file,
    language_recipe,
    language_tokenizer,
    masked_recipe,
    save_language_model,
    sentences,
)
from typed import Said, hurried, stillhouse, write_recipe

KNOWN = 24
"""Questions that are answered in the training file."""
ANSWERS = {"max_new_tokens": 100, "temperature": 1.5}
"""Of a teacher that has learned nothing: drawn so that some answers end."""


def odd_is_wrong(answer: str, row: dict[str, Any]) -> bool:
    """A checker that looks at the question alone."""
    return int(row["prompt"].split()[1]) % 2 == 0


def asks(numbers: range, answer: str | None = None) -> list[dict[str, str]]:
    more = {} if answer is None else {"completion": answer}
    return [{"prompt": f"the {number} river", **more} for number in numbers]


def lines(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def talker(folder: Path, plan: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Plain values of a language model's recipe with rounds on questions, the first of which are known already."""
    values = language_recipe(folder)
    qa = lines(folder / "qa.jsonl", asks(range(KNOWN), " reads a book."))
    pool = lines(folder / "pool.jsonl", asks(range(KNOWN - 8, KNOWN + 16)))
    return {
        **values,
        "data": {"train": {"source": str(qa)}, "split": 8, "max_length": 64},
        "train": {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": {"resamples": 200, "hard_only": False, "speed": False},
        "report": {"samples": 0},
        "plan": {"kind": "rounds", "pool": {"source": str(pool)}, "rows": 4, "most": 1, **plan},
        **changes,
    }


def run(values: dict[str, Any], folder: Path) -> Said:
    recipe = write_recipe(folder.with_suffix(".yaml"), values)
    with hurried():
        return stillhouse("run", recipe, "--folder", folder)


@contextmanager
def written() -> Iterator[list[str]]:
    """The questions that a model is asked to answer in here."""
    prompts: list[str] = []
    real = LocalWriter.write

    def counting(self: Any, some: Any, sampling: Any, seeds: Any) -> Any:
        prompts.extend(some)
        return real(self, some, sampling, seeds)

    with mock.patch.object(LocalWriter, "write", counting):
        yield prompts


# ── the teacher answers ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_teacher_writes_the_answers_of_the_chosen_questions_each_once(tmp_path: Path) -> None:
    values = talker(tmp_path, {"answers": ANSWERS, "most": 2})
    folder = tmp_path / "rounds"
    with written() as prompts, always_better():
        said = run(values, folder)
    assert said.code == 0, said.err
    chosen = {name: read_jsonl(folder / "chosen" / f"{name}.jsonl") for name in ("round-1", "round-2", "random-2")}  # fmt: skip
    assert [len(rows) for rows in chosen.values()] == [4, 8, 8]
    assert chosen["round-2"][:4] == chosen["round-1"]
    new = {row["prompt"] for row in asks(range(KNOWN, KNOWN + 16))}
    for rows in chosen.values():
        assert all(set(row) == {"prompt"} and row["prompt"] in new for row in rows), "known ones never"
    assert sorted(prompts) == sorted({row["prompt"] for row in chosen["round-2"] + chosen["random-2"]})
    facts = {name: read_json(folder / "runs" / name / "prepare" / "DONE.json")["result"] for name in ("round-0", "round-2")}  # fmt: skip
    counts = facts["round-2"]["counts"]["written"]
    assert counts["texts"] == 8
    assert counts["kept"] > 0
    assert facts["round-2"]["sets"]["train"]["rows"] == facts["round-0"]["sets"]["train"]["rows"] + counts["kept"]  # fmt: skip
    found = read_json(folder / "results.json")
    assert "answered by the teacher" in next(row["about"] for row in found["runs"] if row["name"] == "round-2")  # fmt: skip
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("DONE.json")}
    with written() as prompts, always_better(), mock.patch.object(rounds, "worst_first", side_effect=AssertionError):  # fmt: skip
        assert run(values, folder).code == 0
    assert prompts == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("DONE.json")} == times


def test_questions_are_chosen_where_the_student_strays_from_the_teacher_in_its_own_answers(
    tmp_path: Path,
) -> None:
    """Against the student's greedy answers by `generate`, and a KL summed over them in float64."""
    recipe = parse_recipe(talker(tmp_path, {"answers": {"max_new_tokens": 6}}))
    student = save_language_model(tmp_path / "student", layers=2, seed=5)
    task = make_task("causal_lm", language_tokenizer(), 64, [])
    rows: Any = [{**row, "id": row["prompt"], "where": "pool:1"} for row in asks(range(6))]
    pool = readable(recipe, rows, task, [])
    found = worst_first(recipe, pool, task, student, tmp_path / "teacher", Silent())
    models = [task.load(folder).double().eval() for folder in (tmp_path / "teacher", student)]
    far = {}
    for row in rows:
        ids = torch.tensor([task.tokenizer(row["prompt"])["input_ids"]])
        text = models[1].generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False,
            pad_token_id=task.tokenizer.pad_token_id, suppress_tokens=list(range(task.outcomes, 448)),
        )  # fmt: skip
        said = task.tokenizer.decode(text[0, ids.shape[1] :], skip_special_tokens=True)
        whole = torch.tensor([task.tokenizer(row["prompt"] + said + task.tokenizer.eos_token)["input_ids"]])
        with torch.no_grad():
            log_p, log_q = (m(whole).logits[0, :, : task.outcomes].log_softmax(-1) for m in models)
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)
        far[row["id"]] = float(kl[ids.shape[1] - 1 : -1].sum())
    assert len(set(far.values())) == 6
    assert found == sorted(far, key=lambda key: -far[key])


def test_questions_of_a_chat_are_known_by_their_turns_and_lose_their_answers(tmp_path: Path) -> None:
    recipe = parse_recipe(talker(tmp_path, {"answers": {}}))
    task = make_task("causal_lm", language_tokenizer(), 64, [])

    def row(number: int, answer: str | None) -> Any:
        turns = [{"role": "user", "content": f"the {number} river"}]
        turns += [] if answer is None else [{"role": "assistant", "content": answer}]
        return {"messages": turns, "id": str(number), "where": f"pool:{number}"}

    known, _ = task.encode([row(1, "reads")])
    long = row(4, None)
    long["messages"][0]["content"] *= 20
    pool = readable(recipe, [row(1, None), row(2, None), row(3, "writes"), long], task, known)
    assert list(pool) == ["2", "3"], "one is known, and one is too long to be answered"
    for key, fresh in pool.items():
        assert fresh.written == {"messages": [{"role": "user", "content": f"the {key} river"}]}
        assert fresh.prompt == tuple(task.encode([row(int(key), "x")])[0][0].input_ids[: len(fresh.prompt)])
    assert readable(recipe, [row(2, None)], task, task.encode([row(2, "otherwise")])[0]) == {}


def test_the_control_of_all_rounds_learns_what_the_teacher_wrote_as_hard_targets(tmp_path: Path) -> None:
    recipe = parse_recipe(talker(tmp_path, {"answers": ANSWERS}))
    values = with_rows(recipe, plain(recipe), {"source": "/chosen"})
    made = parse_recipe(rounds.hard_only(recipe, 1, Planned("round-1", values, "")).values)
    assert made.data.unlabelled is not None
    assert [one.kind for one in made.data.generate] == ["answers"]
    assert not made.has_teacher


@pytest.mark.parametrize("seed", [0, 3])
def test_rows_that_a_masked_language_model_learned_are_not_fresh_whatever_was_hidden(
    seed: int, tmp_path: Path
) -> None:
    plan = {"kind": "rounds", "pool": {"source": "/pool"}}
    recipe = parse_recipe(masked_recipe(tmp_path, plan=plan, seed=seed))
    task = make_task("masked_lm", encoder_tokenizer(), 32)
    texts = enumerate(sentences(30))
    rows: Any = [{"id": str(at), "where": f"pool:{at}", "text": text} for at, text in texts]
    known = [task.drawn(one, seed, 0) for one in task.encode(rows[:20])[0]]
    fresh = {one.row["text"] for one in readable(recipe, rows, task, known).values()}
    assert fresh == {row["text"] for row in rows} - {row["text"] for row in rows[:20]} != set()


def test_a_long_text_is_chosen_by_the_piece_and_each_piece_is_a_row_of_its_own(tmp_path: Path) -> None:
    """The whole text was written for each of its pieces, so that one row was counted as many."""
    recipe = parse_recipe(masked_recipe(tmp_path, plan={"kind": "rounds", "pool": {"source": "/pool"}}))
    tokenizer = encoder_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.WordPiece()
    task = make_task("masked_lm", tokenizer, 9)
    text = "unknowable wrote" + " orewte" * 9 + " " + " ".join(sentences(4))
    pool = readable(recipe, [{"id": "0", "where": "pool:1", "text": text}], task, [])
    tokens = [unmasked(fresh.example) for fresh in pool.values() if fresh.example is not None]
    assert len(tokens) == len(pool) > 6
    within = [tokenizer.convert_ids_to_tokens(ids[1]).startswith("##") for ids in tokens]
    assert any(within), "pieces that begin within a word"
    written = [{"id": key, "where": "", **fresh.written} for key, fresh in pool.items()]
    learned = task.encode(written)[0]
    assert [one.row for one in learned] == list(pool), "one example of each"
    assert not any("#" in row["text"] for row in written)
    for one, ids, inside in zip(learned, tokens, within, strict=True):
        assert inside or unmasked(one) == ids, "the tokens that the student failed on"


# ── the checker chooses ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_checker_chooses_wrong_answers_alone_and_ends_the_rounds_when_there_are_none(
    tmp_path: Path,
) -> None:
    evaluate = {
        **talker(tmp_path, {})["evaluate"],
        "answers": {"rows": 4, "max_new_tokens": 4, "checker": f"{__name__}:odd_is_wrong"},
    }
    plan = {"by": "checker", "answers": ANSWERS, "rows": 30, "most": 3, "judge": "answers"}
    folder = tmp_path / "rounds"
    with always_better():
        said = run(talker(tmp_path, plan, evaluate=evaluate), folder)
    assert said.code == 0, said.err
    chosen = read_jsonl(folder / "chosen" / "round-1.jsonl")
    assert {row["prompt"] for row in chosen} == {f"the {n} river" for n in range(KNOWN, KNOWN + 16) if n % 2}
    assert len(read_jsonl(folder / "chosen" / "random-1.jsonl")) == len(chosen) == 8
    found = read_json(folder / "results.json")["rounds"]
    assert [row["round"] for row in found["history"]] == [1]
    assert found["why"] == (
        "Stopped before round 2: the checker finds no wrong answer in the rest of the pool."
    )


@pytest.mark.parametrize(
    ("plan", "changes", "said"),
    [
        ({"by": "checker"}, {}, "plan.by: nobody checks answers; add evaluate.answers with a checker"),
        (
            {"answers": {}},
            {"data.generate": [{"kind": "answers"}]},
            "plan.answers: data.generate puts the teacher's answers in place of data.train's",
        ),
    ],
)
def test_rounds_without_what_they_need_are_refused_before_anything_is_loaded(
    tmp_path: Path, plan: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    values = talker(tmp_path, plan)
    values["data"] |= {name.removeprefix("data."): value for name, value in changes.items()}
    found = stillhouse("validate", write_recipe(tmp_path / "r.yaml", values))
    assert found.code == 2
    assert said in " ".join(found.err.split())


def test_a_classifiers_teacher_writes_no_answers(tmp_path: Path) -> None:
    plan = {"kind": "rounds", "pool": {"source": str(tmp_path / "rows.csv")}, "answers": {}}
    found = stillhouse("validate", write_recipe(tmp_path / "r.yaml", classifier(tmp_path, plan=plan)))
    assert found.code == 2
    assert "plan.answers: a classifier's teacher labels, and writes nothing" in found.err


def test_plain_text_is_no_question(tmp_path: Path) -> None:
    recipe = parse_recipe(talker(tmp_path, {"answers": {}}))
    rows: Any = [{"text": "the river", "id": "1", "where": "pool:1"}]
    with pytest.raises(RecipeError, match="plain text asks nothing"):
        readable(recipe, rows, make_task("causal_lm", language_tokenizer(), 64, []), [])


# ── the budget ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_spent_budget_ends_the_rounds_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    pool = labelled_file(tmp_path / "pool.csv", rows=40, seed=9)
    plan = {"kind": "rounds", "pool": {"source": str(pool)}, "rows": 10, "most": 1}
    folder = tmp_path / "rounds"
    with mock.patch.object(rounds, "seconds_spent", return_value=50.0):
        said = run(classifier(tmp_path, plan={**plan, "budget": {"seconds": 50}}), folder)
    assert said.code == 0, said.err
    found = read_json(folder / "results.json")
    assert "50 s of the budget of 50 s are spent." in found["rounds"]["why"]
    assert found["rounds"]["why"] in (folder / "report.html").read_text()
    assert (found["product"], len(found["runs"])) == ("round-0", 1)
    first = (folder / "runs" / "round-0" / "train" / "DONE.json").stat().st_mtime_ns
    assert run(classifier(tmp_path, plan={**plan, "budget": {"seconds": 10**6}}), folder).code == 0
    assert [row["round"] for row in read_json(folder / "results.json")["rounds"]["history"]] == [1]
    assert (folder / "runs" / "round-0" / "train" / "DONE.json").stat().st_mtime_ns == first


@pytest.mark.parametrize(("seconds", "stopped_before"), [(69, 1), (70, 2), (129, 2), (130, 3)])
def test_a_round_is_begun_only_if_one_like_the_one_before_still_fits(
    tmp_path: Path, seconds: int, stopped_before: int
) -> None:
    """Round 0 takes 30 s, 20 of them like a round's; each round and its control 50 s: 30, 80 and 130 s in all."""
    recipe = parse_recipe(talker(tmp_path, {"budget": {"seconds": seconds}, "most": 9}))
    going = _Rounds(recipe, recipe.plan, Bench(tmp_path, Silent()))  # type: ignore[arg-type]

    def make(name: str, **stages: float) -> None:
        for stage, took in stages.items():
            write_json(tmp_path / "runs" / name / stage / "DONE.json", {"seconds": took, "result": {}})
        going.runs.append(Planned(name, {}, ""))

    make("round-0", prepare=10.0, label=0.0, train=12.0, evaluate=8.0)
    at = 1
    while going._over_budget(at, begun=False) is None:
        make(f"round-{at}", train=25.0)
        make(f"random-{at}", train=25.0)
        at += 1
    assert at == stopped_before


# ── the price ───────────────────────────────────────────────────────────────────────────────────────────────────────

PACE = {"teacher_read": 4.0, "student_read": 1.0, "student_step": 0.5, "compare": 0.25}


def looked_at(lengths: list[int], counted: int = 0) -> dict[str, Any]:
    """A pool of rows of so many tokens; of prompts if none is counted."""
    made = {}
    for number, length in enumerate(lengths):
        ids = list(range(length))
        one = Example(str(number), str(number), ids, [IGNORED] * (length - counted) + ids[:counted], [0], 0)
        fresh = Fresh({}, {}, one) if counted else Fresh({}, {}, prompt=tuple(ids))  # type: ignore[typeddict-item]
        made[str(number)] = fresh
    return made


class Planted(_Rounds):
    """Rounds in which nobody learns: who is right on which of 200 held-out rows is written down beforehand."""

    _task: Any = None  # nobody reads the pool
    right: dict[str, Any]

    def _pool(self, first: Planned) -> Any:
        return {str(number): None for number in range(99)}

    def _make(self, one: Planned) -> None:
        self.runs.append(one)

    def _round(self, kind: str, at: int, keys: list[str], pool: Any) -> None:
        self.chosen[kind] += keys
        self._make(Planned(f"{kind}-{at}", {}, "", f"{kind}-{at}"))

    def _worst(self, name: str, before: str, left: Any) -> list[str]:
        return list(left)[:2]

    def _judged(self, run: str) -> dict[str, Any]:
        return {"texts": np.ones(200), "correct": self.right[run]}


def right(*flipped: range) -> Any:
    """[200] Right on the first 100 rows, but for those flipped."""
    found = np.arange(200) < 100
    for some in flipped:
        found[list(some)] = ~found[list(some)]
    return found.astype(float)


@pytest.mark.parametrize(
    ("second", "why", "rounds_run", "product"),
    [
        ((range(140, 144), range(0, 3)), "Stopped after round 2: its gain is not beyond chance.", 2, "round-1"),
        ((range(0, 40),), "Stopped after round 2: its gain is not beyond chance.", 2, "round-1"),
        ((range(140, 180),), "Stopped after round 3: its gain is not beyond chance.", 3, "round-2"),
    ],
)  # fmt: skip
def test_rounds_end_with_the_first_whose_gain_the_rows_do_not_tell_from_none_and_hand_over_the_one_before(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    second: tuple[range, ...],
    why: str,
    rounds_run: int,
    product: str,
) -> None:
    """Of a gain of half a row in a hundred the interval includes 0; a loss beyond chance is no gain; a round like the one before
    gains exactly nothing."""
    plan = {"kind": "rounds", "pool": {"source": str(tmp_path / "rows.csv")}, "rows": 2, "most": 9}
    recipe = parse_recipe(classifier(tmp_path, plan=plan))
    monkeypatch.setattr(rounds, "collect", lambda recipe, plan, bench, more: {"plan": plan, **more["rounds"]})
    going = Planted(recipe, recipe.plan, Bench(tmp_path, Silent()))  # type: ignore[arg-type]
    first = (range(100, 140),)
    going.right = {
        "round-0": right(), "round-1": right(*first), "round-2": right(*first, *second), "round-3": right(*first, *second),
        **{f"random-{at}": right() for at in (1, 2, 3)},
    }  # fmt: skip
    found = going.run()
    assert found["why"] == why
    gains = [row["value"] for row in found["history"]]
    wanted = [going.right[f"round-{at}"].mean() - going.right[f"round-{at - 1}"].mean() for at in (1, 2, 3)]
    assert gains == pytest.approx(wanted[:rounds_run])
    assert found["history"][0]["low"] > 0
    last = found["history"][-1]
    assert last["low"] <= 0 or last["high"] < 0
    assert found["plan"].product == product
    assert found["history"][-1]["rows"] == 2 * rounds_run
    assert [one.name for one in going.runs] == [
        "round-0",
        *(f"{kind}-{at}" for at in range(1, rounds_run + 1) for kind in ("round", "random")),
    ]


def test_looking_at_a_pool_costs_what_both_models_read(tmp_path: Path) -> None:
    recipe = parse_recipe(talker(tmp_path, {}))
    takes = choosing_takes(recipe, looked_at([10, 20], counted=3), (4, 2.0), PACE)
    assert takes == pytest.approx(30 * (4.0 + 1.0) + 2 * 6 * 0.25)


def test_looking_at_answers_costs_writing_them_and_a_checker_reads_none(tmp_path: Path) -> None:
    recipe = parse_recipe(talker(tmp_path, {"answers": {"max_new_tokens": 6}}))
    writes = 6 * 2 * 2.0 * 0.5 + 50 * 1.0  # five prompts in two turns of four
    takes = choosing_takes(recipe, looked_at([10] * 5), (4, 2.0), PACE)
    assert takes == pytest.approx(writes + (50 + 30) * 5.0 + 2 * 30 * 0.25)


def test_the_price_of_rounds_counts_the_rows_that_are_read_to_choose_others(tmp_path: Path) -> None:
    values = talker(tmp_path, {"most": 3, "rows": 6})
    pool = lines(tmp_path / "answered.jsonl", asks(range(KNOWN, KNOWN + 16), " reads."))
    values["plan"]["pool"] = {"source": str(pool)}
    with hurried():
        said = stillhouse(
            "plan",
            write_recipe(tmp_path / "r.yaml", values),
            "--folder",
            tmp_path / "run",
            "--format",
            "json",
        )
    assert said.code == 0, said.err
    found = json.loads(said.out)
    first = tmp_path / "run" / "runs" / "round-0"
    recipe = parse_recipe(values)
    task = rounds.task_in(recipe, first)
    fresh = rounds.pool_of(recipe, first, task, Silent())
    assert len(fresh) == 16
    once = choosing_takes(
        recipe, fresh, (SLOTS, TOGETHER), read_json(first / "plan" / "plan.json")["seconds_a_token"]
    )
    assert once > 0
    chosen = found["runs"]["choosing rows"]["seconds"]
    assert chosen == pytest.approx(once * (16 + 10 + 4) / 16, abs=0.06), "each round reads what is left"
    assert found["total_seconds"] == pytest.approx(
        sum(row["seconds"] for row in found["runs"].values()), abs=0.2
    )
    assert found["notes"] == []


def priced(values: dict[str, Any], folder: Path, **seconds: float) -> Any:
    """The price of a plan's runs, each of which is measured to take so long."""
    plan = {
        "seconds": seconds, "asking_seconds": 0.0, "money_by_stage": {"prepare": 0.0, "label": 0.0}, "examples": 16,
        "peak_memory_bytes": 1, "disk_bytes": 1,
    }  # fmt: skip
    recipe = parse_recipe(values)
    with mock.patch.object(price, "_measured", return_value=plan):
        return price.price_runs(recipe, price._runs(recipe), folder, Silent())


def test_each_round_and_its_control_train_and_are_measured_anew(tmp_path: Path) -> None:
    found = priced(
        talker(tmp_path, {"most": 3, "rows": 4}), tmp_path / "run", label=8.0, train=100.0, evaluate=10.0
    )
    runs = {name: row["seconds"] for name, row in found["runs"].items()}
    others = [f"{kind}-{number}" for number in (1, 2, 3) for kind in ("round", "random")]
    assert runs.pop("round-0") == 118.0
    assert runs == dict.fromkeys(others, 4 / 16 * 8.0 + 110.0), "the teacher labels new rows alone"
    assert found["total_seconds"] == 118.0 + 6 * 112.0


def test_a_round_that_counts_epochs_reads_all_rows_that_were_chosen_by_then(tmp_path: Path) -> None:
    values = talker(tmp_path, {"most": 2, "rows": 4})
    values["train"] = {**values["train"], "steps": None, "epochs": 2}
    runs = priced(values, tmp_path / "run", train=100.0)["runs"]
    assert [runs[name]["seconds"] for name in ("round-0", "round-1", "random-2")] == [100.0, 125.0, 150.0]


def test_a_control_of_hard_targets_is_priced_with_the_chosen_rows_only_where_it_learns_them(
    tmp_path: Path,
) -> None:
    """A classifier's was priced as if it learned rows without labels."""
    pool = labelled_file(tmp_path / "pool.csv", rows=40, seed=9)
    plan = {"kind": "rounds", "pool": {"source": str(pool)}, "rows": 4, "most": 2}
    found = {}
    for values in (classifier(tmp_path, plan=plan), talker(tmp_path, {"most": 2, "rows": 4})):
        values["train"] = {**values["train"], "steps": None, "epochs": 2}
        values["evaluate"] = {**values.get("evaluate", {}), "hard_only": True}
        runs = priced(values, tmp_path / values["task"], train=100.0)["runs"]
        found[values["task"]] = [runs[name]["seconds"] for name in ("round-2", "hard-only")]
    assert found == {"classification": [150.0, 100.0], "causal_lm": [150.0, 150.0]}


def test_rounds_fine_tune_their_teacher_once_and_have_one_control_of_hard_targets(tmp_path: Path) -> None:
    pool = labelled_file(tmp_path / "pool.csv", rows=40, seed=9)
    plan = {"kind": "rounds", "pool": {"source": str(pool)}, "rows": 4, "most": 2}
    values = classifier(tmp_path, plan=plan)
    values["teacher"] = {**values["teacher"], "finetune": {"epochs": 1}}
    values["evaluate"] = {**values.get("evaluate", {}), "hard_only": True}
    found = priced(values, tmp_path / "run", teacher=50.0, train=100.0)["runs"]
    assert found["round-0"]["seconds"] == 150.0
    assert [found[f"{kind}-2"]["seconds"] for kind in ("round", "random")] == [100.0, 100.0]
    assert "teacher of round-0" in found["round-1"]["taken"]
    recipe = parse_recipe(values)
    controls = {one.name: parse_recipe(one.values).evaluate.hard_only for one in price._runs(recipe)}
    assert [name for name, control in controls.items() if control] == ["round-0"]
