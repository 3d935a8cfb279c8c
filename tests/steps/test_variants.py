"""Held-out rows once more, changed, in a run of a language model: what is read, asked for, and measured."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from stillhouse.data.encode import read_examples
from stillhouse.data.formats import Row, with_id
from stillhouse.errors import DataError, RecipeError
from stillhouse.files import read_json, read_jsonl
from stillhouse.kept import read_rows, rows_path
from stillhouse.models.load import load_model, load_tokenizer
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.runner import run_stages
from stillhouse.steps import variants, writing
from stillhouse.tasks import make_task


class Reverses:
    """A writer that says the words of a text in reverse; it cannot end one that begins with a 7."""

    identity = "reverses"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def write(self, prompts: Any, sampling: Any, seeds: Any) -> Any:
        for number, prompt in enumerate(prompts):
            text = prompt[-1]["content"].partition("\n\n")[2].strip()
            self.asked.append(text)
            yield number, None if text.startswith("7") else " ".join(reversed(text.split()))


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Reverses:
    found = Reverses()
    monkeypatch.setattr(writing, "make_writer", lambda recipe, models: found)
    return found


def nats_by_hand(folder: Path, row: dict[str, Any]) -> float:
    """−log p(completion | prompt), asked of transformers directly."""
    model, tokenizer = load_model(folder, "AutoModelForCausalLM"), load_tokenizer(folder)
    before, after = (tokenizer(row[part])["input_ids"] for part in ("prompt", "completion"))
    with torch.no_grad():
        logits = model(torch.tensor([[*before, *after]])).logits[0, :, : len(tokenizer)]
    said = logits[max(0, len(before) - 1) : -1].double().log_softmax(-1)
    wanted = torch.tensor(after if before else after[1:])
    return -float(said.gather(-1, wanted.unsqueeze(-1)).sum())


def test_a_run_on_plain_texts_measures_what_changes_and_swaps_cost(
    tmp_path: Path, writer: Reverses, hurry: None
) -> None:
    recipe = tiny.language_recipe(tmp_path)
    recipe["evaluate"] = {
        "rows": 12, "resamples": 200, "speed": False, "perturb": ["typos", "longer", "paraphrase"], "swap": [["good", "bad"]],
    }  # fmt: skip
    recipe["data"]["writer"] = {"model": str(tmp_path / "teacher")}  # type: ignore[index]
    run = tmp_path / "run"
    run_stages(parse_recipe(recipe), run, Silent())
    found = read_json(run / "results.json")
    assert set(found["robustness"]) == {"eval_typos", "eval_longer", "eval_paraphrase"}
    assert all(each["rows"] >= 6 for each in found["robustness"].values())
    assert found["robustness"]["eval_typos"]["models"]["student"]["low"] is not None
    assert found["counterfactual"]["rows"] >= 3 and found["counterfactual"]["metric"] == "moved"
    assert found["counterfactual"]["drift"]["value"] is not None
    assert found["student"]["metrics"]["eval"]["adaptive_ece"]["value"] > 0
    assert "second half" in (run / "report.html").read_text(encoding="utf-8")
    for kind in ("eval_halves", "eval_paraphrase", "eval_swapped", "eval_unswapped"):
        rows = {row["id"]: row for row in read_jsonl(run / "prepare" / f"{kind}-rows.jsonl")}
        mine = [rows[one.row] for one in read_examples(run / "prepare" / f"{kind}.parquet")]
        measured = read_rows(rows_path(run / "evaluate", "teacher", kind))
        np.testing.assert_allclose(
            measured["nll"][:4], [nats_by_hand(tmp_path / "teacher", row) for row in mine[:4]], rtol=1e-4
        )
        if kind != "eval_swapped":
            assert measured["bytes"][0] == len(mine[0]["completion"].encode()) or kind == "eval_unswapped"


def asked_for(tmp_path: Path, held: list[Row], **evaluate: Any) -> dict[str, list[Row]]:
    """`variants` of a classifier's rows."""
    tiny.save_language_model(tmp_path / "teacher")
    wanted = SimpleNamespace(**{"perturb": [], "swap": [], "rows": None, **evaluate})
    data = SimpleNamespace(writer=None, max_length=32)
    recipe = SimpleNamespace(evaluate=wanted, task="classification", seed=0, data=data)
    task = make_task("classification", load_tokenizer(tmp_path / "teacher"), 32, ["x"])
    models = {"teacher": {"folder": str(tmp_path / "teacher")}}
    return variants.variants(recipe, held, task, models, tmp_path / "prepare", Silent())  # type: ignore[arg-type]


def labelled(*texts: str) -> list[Row]:
    return [with_id({"where": f"f:{n}", "text": text, "label": "x"}) for n, text in enumerate(texts)]


def test_prompts_whose_terms_are_swapped_are_those_that_are_measured(tmp_path: Path) -> None:
    """The first rows cannot be used, and those with a term are not the first: the changed ones are of what `rows` leaves."""
    tiny.save_language_model(tmp_path / "teacher")
    task = make_task("causal_lm", load_tokenizer(tmp_path / "teacher"), 24)
    prompts = ["good " * 40, "seven", "good eight", "nine", "bad ten", "good eleven"]
    rows = [
        with_id({"where": f"f:{n}", "prompt": prompt, "completion": " yes"})
        for n, prompt in enumerate(prompts)
    ]
    wanted = SimpleNamespace(perturb=["capitals"], swap=[["good", "bad"]], rows=4)
    recipe = SimpleNamespace(evaluate=wanted, task="causal_lm", seed=0)
    made = variants.variants(recipe, rows, task, {}, tmp_path / "prepare", Silent())
    measured = [example.row for example in task.encode([dict(row) for row in rows])[0][:4]]
    assert measured == [row["id"] for row in rows[1:5]], "the first is too long"
    assert [row["id"] for row in made["eval_capitals"]] == measured
    assert [(row["id"], row["prompt"]) for row in made["eval_swapped"]] == [
        (rows[2]["id"], "bad eight"),
        (rows[4]["id"], "good ten"),
    ]
    assert variants.variants(recipe, rows[:1], task, {}, tmp_path, Silent()) == {}, "`eval` itself says so"


def test_a_paraphrase_keeps_id_and_label_and_what_is_none_is_left_out(
    tmp_path: Path, writer: Reverses
) -> None:
    rows = labelled("one two three", "7 has no end", "same", "four five")
    made = asked_for(tmp_path, rows, perturb=["paraphrase"])["eval_paraphrase"]
    assert made == [{**rows[0], "text": "three two one"}, {**rows[3], "text": "five four"}]
    assert asked_for(tmp_path, rows, perturb=["paraphrase"], rows=2)["eval_paraphrase"] == made[:1]
    assert len(writer.asked) == 4, "asked once; what was asked is found again"


def test_where_nothing_can_be_changed_one_sentence_says_so(tmp_path: Path, writer: Reverses) -> None:
    with pytest.raises(DataError, match=r"evaluate\.perturb: the writer has put none .* data\.writer"):
        asked_for(tmp_path, labelled("7 has no end"), perturb=["paraphrase"])
    with pytest.raises(DataError, match=r"evaluate\.swap: none of its terms"):
        asked_for(tmp_path, labelled("one"), swap=[["he", "she"]])


def test_who_cannot_paraphrase_is_told_whom_to_name(tmp_path: Path) -> None:
    recipe = tiny.language_recipe(tmp_path)
    recipe["evaluate"] = {"perturb": ["paraphrase"]}
    with pytest.raises(RecipeError, match=r"paraphrase needs somebody who writes; .* data\.writer\.model"):
        parse_recipe(recipe)
    recipe["data"]["writer"] = {}  # type: ignore[index]
    assert parse_recipe(recipe).data.writer is not None, "a language model may write itself"
    recipe["student"] = {**recipe["student"], "vocabulary": 300}  # type: ignore[dict-item]
    with pytest.raises(RecipeError, match=r"not for this teacher to write; .* data\.writer\.model"):
        parse_recipe(recipe)
