"""What a language model knows by heart: planted secrets found where they were learned, and not where they were not."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import planted as past
import tiny
from stillhouse.cost import generate
from stillhouse.data.canaries import canary, pool, secret
from stillhouse.data.encode import read_examples
from stillhouse.errors import DataError, GateError, RecipeError
from stillhouse.memorisation import apart, continued, memorisation, read
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.recipe import Memorisation, parse_recipe
from stillhouse.report.evidence import sections
from stillhouse.runner import run
from stillhouse.steps.finish import check_gate
from stillhouse.tasks import Task, make_task
from typed import hurried, stillhouse

WANTED = Memorisation(canaries=6, repeats=3, alternatives=31, prefixes=60, prompt_tokens=8, tokens=6)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_language_model(tmp_path_factory.mktemp("recall") / "teacher")


@pytest.fixture(scope="module")
def task(teacher: Path) -> Task:
    return make_task("causal_lm", load_tokenizer(teacher), 48)


def rows_of(task: Task, count: int, seed: int) -> list[Any]:
    rows = [
        {"id": str(number), "where": "", "text": text}
        for number, text in enumerate(tiny.sentences(count, seed))
    ]
    return apart(task, rows)


@pytest.fixture(scope="module")
def recalled(teacher: Path, task: Task, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model that learned secrets and rows by heart, beside one that never saw them."""
    place = tmp_path_factory.mktemp("recalled")
    words = pool(task.tokenizer)
    secrets = apart(task, [dict(canary("text", secret(words, 5, number), number)) for number in range(6)])
    train, held = rows_of(task, 16, 1), rows_of(task, 60, 2)
    model = task.load(teacher).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    batch = task.collate([*secrets, *train])
    for _ in range(150):
        loss = model(input_ids=batch["input_ids"], labels=batch["labels"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(place / "student")
    task.tokenizer.save_pretrained(place / "student")
    folders = {"teacher": teacher, "student": place / "student"}
    sets = {"train": [*train, *secrets], "held_out": held}
    found = memorisation(
        folders, task, WANTED, "text", sets, 150.0, place, Silent(), resamples=200, seed=5
    )  # fmt: skip
    assert found is not None
    return found


def test_a_model_that_learned_the_secrets_is_found_out_and_one_that_never_saw_them_is_not(
    recalled: dict[str, Any],
) -> None:
    found = recalled["canaries"]
    assert found["models"]["student"]["mean"] > 4.0
    assert found["models"]["student"]["p"] < 0.01
    assert found["models"]["teacher"]["p"] > 0.05
    assert "has memorised planted secrets" in found["says"]


def test_rows_learned_by_heart_are_told_from_rows_that_are_easy(recalled: dict[str, Any]) -> None:
    found = recalled["verbatim"]
    assert found["rows"] == {"train": 16, "held_out": 60}, "planted rows are no training text"
    assert found["models"]["student"]["train"]["value"] > 0.5
    assert found["models"]["student"]["held_out"]["value"] < 0.1
    assert "reproduces training text" in found["says"]


def test_one_forward_pass_tells_what_a_greedy_continuation_writes(teacher: Path, task: Task) -> None:
    model = task.load(teacher)
    wanted = WANTED.model_copy(update={"tokens": 1})
    some = continued(rows_of(task, 60, 3), wanted)
    found = read(model, task, some, Silent(), "reads")
    hits = (found["correct"] == found["tokens"]).tolist()
    for example, hit in zip(some, hits, strict=True):
        prompt = torch.tensor([example.input_ids[:8]])
        written = generate(model, task, prompt, 1, 1).tolist()
        assert hit == (written == example.input_ids[8:9])
    longer = continued(rows_of(task, 3, 3), WANTED)
    assert found["tokens"].tolist() == [1.0] * len(some)
    assert [len(example.input_ids) for example in longer] == [14] * 3


def test_a_prompt_is_continued_with_its_answer_and_documents_do_not_run_into_one_another(task: Task) -> None:
    row = {
        "id": "1",
        "where": "",
        "prompt": "the old house",
        "completion": " keeps the quiet river near the red book",
    }
    (example,), _ = task.encode([row])
    (cut,) = continued([example], WANTED)
    first = next(at for at, label in enumerate(example.labels) if label >= 0)
    assert cut.input_ids == example.input_ids[: first + 6]
    packed = list(task.encode([{"id": str(n), "where": "", "text": "the old house."} for n in range(8)])[0])
    assert continued(packed, WANTED) == [], "the end of one text says nothing of the next"


@pytest.mark.parametrize("form", ["text", "prompt_completion", "messages"])
def test_secrets_follow_from_seed_and_number_and_differ_from_their_alternatives(
    task: Task, form: str
) -> None:
    words = pool(task.tokenizer)
    assert {"river", "teacher"} <= set(words)
    said = [secret(words, 1, number, draw) for number in range(3) for draw in range(20)]
    assert len(set(said)) == 60
    assert said == [secret(words, 1, number, draw) for number in range(3) for draw in range(20)]
    assert secret(words, 2, 0) != secret(words, 1, 0)
    roomy = make_task("causal_lm", task.tokenizer, 128)
    (example,) = apart(roomy, [dict(canary(form, said[0], 0))])
    counted = [token for token, label in zip(example.input_ids, example.labels, strict=True) if label >= 0]
    assert said[0] in task.tokenizer.decode(counted), "the whole secret is learned"
    for cut in (6, len(example.input_ids) - 2):
        with pytest.raises(DataError, match="data.max_length"):
            apart(make_task("causal_lm", task.tokenizer, cut), [dict(canary(form, said[0], 0))])


def test_a_run_counts_and_names_what_it_plants(tmp_path: Path) -> None:
    recipe = tiny.language_recipe(tmp_path)
    recipe["evaluate"] = {
        "rows": 6, "resamples": 200, "speed": False,
        "memorisation": WANTED.model_dump(),
    }  # fmt: skip
    wanted = parse_recipe(
        {
            **recipe,
            "train": {"steps": 2, "precision": "float32"},
            "report": {"samples": 0},
            "gate": {"max_exposure": 6.0},
        }
    )
    with hurried():
        found = run(wanted, tmp_path / "run")
    train = read_examples(tmp_path / "run/prepare/train.parquet")
    times = Counter(example.row for example in train if example.row.startswith("canary-"))
    assert times == {f"canary-{number}": 3 for number in range(6)}
    assert found["data"]["canaries"] == {
        "secrets": 6, "repeats": 3, "rows": 18, "form": "text", "kept_in": "prepare/canaries.jsonl",
    }  # fmt: skip
    said = [json.loads(line) for line in (tmp_path / "run/prepare/canaries.jsonl").read_text().splitlines()]
    assert said[0]["text"] in task_text(train, tmp_path)
    secrets = found["memorisation"]["canaries"]
    assert set(secrets["models"]) == {"teacher", "student", "initial", "hard_only"}
    assert secrets["read"] == pytest.approx(3 * 2 * 8 / len(train))
    assert "nothing can be said" in secrets["says"], "two steps read few of them"
    assert any(section.title == "Planted secrets" for section in sections(found))
    assert "18 of the training rows hold 6 made-up secrets" in (tmp_path / "run/student/README.md").read_text(
        encoding="utf-8"
    )
    secrets["models"]["student"]["mean"] = 6.5
    with pytest.raises(GateError, match=r"gate\.max_exposure: .* 6\.50 bits, above 6"):
        check_gate(wanted, found)


def task_text(examples: list[Any], folder: Path) -> str:
    """All training rows in words."""
    tokenizer = load_tokenizer(folder / "teacher")
    return " ".join(tokenizer.decode(example.input_ids) for example in examples)


def test_check_refuses_a_run_that_planted_nothing(tmp_path: Path) -> None:
    said = stillhouse("check", past.run(tmp_path / "run"), "--max-exposure", 3)
    assert (said.code, "no secrets were planted" in said.err) == (6, True)
    secrets = {"canaries": {"models": {"student": {"mean": 1.5}}}}
    clean = past.run(tmp_path / "clean", memorisation=secrets)
    assert stillhouse("check", clean, "--max-exposure", 3).code == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gate": {"max_exposure": 2.0}}, "no secrets are planted"),
        ({"evaluate": {"memorisation": {"canaries": 0}}, "gate": {"max_exposure": 2.0}}, "no secrets are planted"),
        ({"task": "classification", "evaluate": {"memorisation": {}}}, "only a language model"),
        (
            {
                "evaluate": {"memorisation": {}}, "label": {}, "objective": [{"kind": "hard"}],
                "teacher": {"api": {"base_url": "http://localhost:1/v1", "model": "m"}},
                "student": {"model": "x"},
            },
            "set canaries: 0",
        ),
    ],
)  # fmt: skip
def test_secrets_that_cannot_be_learned_are_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(tiny.language_recipe(tmp_path, **changes))
