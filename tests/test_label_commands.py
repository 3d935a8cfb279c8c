"""stillhouse label: what was asked, said and paid, and batches out and in; the run then needs no endpoint."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from endpoint import Endpoint
from stillhouse.asking import Ledger, ask, chat
from stillhouse.files import write_json
from stillhouse.recipe import Api
from typed import process, stillhouse, write_recipe

NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose rows are prepared, and nobody was asked."""
    place = tmp_path_factory.mktemp("labels")
    tiny.save_classifier(place / "base", layers=1)
    tiny.labelled_file(place / "rows.csv", rows=24)
    values: dict[str, Any] = {
        "name": "box", "task": "classification",
        "teacher": {"api": {"base_url": NOWHERE, "model": "big", "price": {"input": 1.0, "output": 2.0}, "max_cost": 5.0}},
        "student": {"model": str(place / "base")},
        "data": {"train": {"source": str(place / "rows.csv")}, "split": 6, "max_length": 32},
        "objective": [{"kind": "forward_kl"}], "train": {"steps": 1},
    }  # fmt: skip
    recipe = write_recipe(place / "box.yaml", values)
    (place / "run").mkdir()
    write_json(place / "run" / "machine.json", {"bfloat16": False})
    said = stillhouse("run", recipe, "--folder", place / "run", "--until", "prepare")
    assert said.code == 0, said.err
    return place


def test_a_batch_goes_out_and_comes_back_and_the_label_stage_asks_nobody(prepared: Path) -> None:
    run, batch, results = prepared / "run", prepared / "batch.jsonl", prepared / "results.jsonl"
    said = stillhouse("label", "export", run, "--out", batch)
    assert "24 requests" in said.out, said.err
    lines = [json.loads(line) for line in batch.read_text().splitlines()]
    with results.open("w") as handle:
        for line in reversed(lines):
            text = line["body"]["messages"][-1]["content"]
            word = "good" if "good good" in text or text.endswith("good.") else "bad"
            body = {
                "choices": [{"message": {"content": word}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 1},
            }
            handle.write(json.dumps({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}) + "\n")  # fmt: skip
    assert "every request has its answer" in stillhouse("label", "import", run, results).out
    assert "nothing to ask" in stillhouse("label", "export", run, "--out", batch).out
    said = stillhouse("run", prepared / "box.yaml", "--folder", run, "--only", "label", "--format", "json")
    assert "plan" in said.err and said.code == 2, "a stage before it is not done"
    said = stillhouse("run", prepared / "box.yaml", "--folder", run, "--until", "label", "--format", "json")
    assert said.code == 0, said.err
    found = json.loads(stillhouse("label", "ls", run, "--format", "json").out)
    assert {row["purpose"]: (row["answered"], row["open"]) for row in found["purposes"]} == {
        "train": (18, 0),
        "eval": (6, 0),
    }
    assert found["attempts"] == {}, "nobody was asked over the network"


def test_one_row_is_shown_whole_and_a_strange_one_is_told(tmp_path: Path) -> None:
    with Endpoint(lambda body: "an answer") as endpoint, Ledger(tmp_path / "ledger.sqlite") as ledger:
        api = Api(base_url=endpoint.url, model="big", system="Be brief.", price={"input": 1.0, "output": 2.0})
        ask(api, [chat(api, "a question", row="row-7", purpose="train")], ledger)
    said = stillhouse("label", "show", tmp_path, "row-7")
    for part in ("system: Be brief.", "user: a question", "→ answered", "an answer", "$0.0000"):
        assert part in said.out
    said = stillhouse("label", "show", tmp_path, "row-8")
    assert said.code == 2
    assert "nobody was asked about such a row; there are row-7" in said.err
    assert "1 answered" in stillhouse("label", "ls", tmp_path).out
    assert stillhouse("label", "export", tmp_path, "--answers", "--out", tmp_path / "a.jsonl").out.endswith(
        "1 answers\n"
    )
    assert json.loads((tmp_path / "a.jsonl").read_text())["answer"]["text"] == "an answer"


@pytest.mark.parametrize("words", [("ls",), ("show", "x"), ("export",), ("import", "x.jsonl")])
def test_a_folder_that_is_no_such_run_is_told_in_a_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = stillhouse("label", words[0], tmp_path, *words[1:])
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir()), "and nothing is made in it"


def test_validate_names_what_is_missing_without_asking(prepared: Path) -> None:
    recipe = prepared / "box.yaml"
    said = stillhouse("validate", recipe)
    assert said.code == 0, said.err
    assert "nothing is asked yet" in said.out
    said = stillhouse("validate", recipe, "--set", "teacher.api.api_key_env=NO_SUCH_KEY_HERE")
    assert said.code == 2
    assert "the environment has no NO_SUCH_KEY_HERE" in said.err
    said = stillhouse("validate", recipe, "--set", "teacher.api.answers=no-such.jsonl")
    assert said.code == 3
    assert "no-such.jsonl does not exist" in said.err


def test_the_commands_and_validate_leave_torch_alone(prepared: Path) -> None:
    script = (
        "import sys; from unittest import mock\n"
        "from stillhouse.cli import main\n"
        "sys.argv = ['stillhouse', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'openai'} & set(sys.modules), 'heavy'\n"
    )
    for words in (
        ("validate", prepared / "box.yaml"),
        ("label", "--help"),
        ("label", "ls", prepared / "run"),
    ):
        with Ledger(prepared / "run" / "ledger.sqlite"):
            said = process(*words, script=script)
        assert said.code == 0, said.err
