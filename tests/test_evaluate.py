"""What models say of held-out rows is read once, kept until it is measured, and measured side by side as it would be alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from stillhouse import evaluate
from stillhouse.blackbox import BlackBoxEvaluation
from stillhouse.data.encode import Example
from stillhouse.evaluate import Evaluation, Source
from stillhouse.kept import RowIndex
from stillhouse.measure import classification_rows, with_merged_bins
from stillhouse.measure import evaluate as metric_of
from stillhouse.models.load import load_tokenizer
from stillhouse.models.machine import device
from stillhouse.probe import look
from stillhouse.progress import Silent
from stillhouse.store import Store
from stillhouse.tasks import Task, make_task
from stillhouse.train.early import value_of

NAMES = ("teacher", "student", "hard_only")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    layers = {"teacher": 2, "student": 1, "hard_only": 1}
    return {
        name: tiny.save_language_model(place / name, layers=count, seed=number)
        for number, (name, count) in enumerate(layers.items())
    }


class Counted:
    """A task that counts how many rows each model has read, and how many tokens, padding included."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.read = self.tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def scores(self, model: Any, batch: Any) -> Any:
        """As the task's."""
        self.read += len(batch["keys"])
        self.tokens += batch["input_ids"].numel()
        return self.task.scores(model, batch)


Made = Callable[[], tuple[Evaluation, Counted]]


@pytest.fixture
def make(folders: dict[str, Path], tmp_path: Path) -> Made:
    """An evaluation of nine rows and five in batches of four, in the same folder each time."""

    def made() -> tuple[Evaluation, Counted]:
        task = make_task("causal_lm", load_tokenizer(folders["teacher"]), 24)
        texts = [{"id": str(n), "where": "", "text": text} for n, text in enumerate(tiny.sentences(60))]
        examples = task.encode(texts)[0]
        sets = {"eval": examples[:9], "other": examples[9:14]}
        counted: Any = Counted(task)
        index = {kind: _index(some) for kind, some in sets.items()}
        return Evaluation(counted, sets, index, tmp_path, 4, Silent()), counted

    return made


def _index(examples: list[Example]) -> RowIndex:
    names = [example.key for example in examples]
    return RowIndex(names, names, names, [len(one.input_ids) for one in examples], [None] * len(names))


def same(one: Any, other: Any) -> None:
    """All rows of all models on all sets."""
    assert one.keys() == other.keys()
    for name in one:
        for kind, rows in one[name].items():
            assert rows.keys() == other[name][kind].keys()
            for column, values in rows.items():
                np.testing.assert_allclose(
                    values, other[name][kind][column], rtol=1e-6, atol=1e-9, err_msg=column
                )


def test_models_measured_together_are_measured_as_each_would_be_alone_and_read_once(
    make: Made, folders: dict[str, Path], tmp_path: Path
) -> None:
    together, counted = make()
    for name in NAMES:
        together.listen(name, counted.load(folders[name]).to(device()))
    assert together.rows == {}
    together.measure()
    assert counted.read == 3 * (9 + 5)
    assert {path.name.split("-")[1] for path in tmp_path.glob("said-*")} == {"teacher"}
    together.forget()
    assert not list(tmp_path.glob("said-*"))
    for path in tmp_path.glob("rows-*"):
        path.unlink()
    alone, counted = make()
    for name in NAMES:
        alone.read(name, counted.load(folders[name]).to(device()))
    same(together.rows, alone.rows)
    assert "kl" in alone.rows["student"]["eval"]
    assert alone.rows["student"]["eval"]["kl"].sum() > 0
    assert alone.rows["teacher"]["eval"]["kl"].sum() == 0


@pytest.mark.parametrize("stop", [0, 2, 5, 8])
def test_a_stopped_evaluation_goes_on_and_reads_nothing_twice(
    stop: int, make: Made, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, counted = make()
    for name in NAMES:
        whole.listen(name, counted.load(folders[name]).to(device()))
    whole.measure()
    whole.forget()
    for path in tmp_path.glob("rows-*"):
        path.unlink()

    first, counted = make()
    calls, save = 0, evaluate.save_tensors

    def stopping(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > stop:
            raise KeyboardInterrupt
        save(*args)

    monkeypatch.setattr(evaluate, "save_tensors", stopping)
    models = {name: counted.load(folders[name]).to(device()) for name in NAMES}
    with pytest.raises(KeyboardInterrupt):
        [first.listen(name, model) for name, model in models.items()]
    monkeypatch.setattr(evaluate, "save_tensors", save)

    again, counted = make()
    for name in NAMES:
        again.listen(name, counted.load(folders[name]).to(device()))
    again.measure()
    same(again.rows, whole.rows)
    sizes = [4, 4, 1, 4, 1] * len(NAMES)
    assert counted.read == sum(sizes[stop:])


def test_a_measured_model_is_not_read_again_when_a_run_goes_on(make: Made, folders: dict[str, Path]) -> None:
    first, counted = make()
    for name in NAMES:
        first.listen(name, counted.load(folders[name]).to(device()))
    first.measure()
    again, counted = make()
    for name in NAMES:
        again.listen(name, counted.load(folders[name]).to(device()))
    again.measure()
    same(again.rows, first.rows)
    assert counted.read == 0


def test_what_students_said_does_not_pile_up_on_the_disk(
    make: Made, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "ENOUGH", 0)
    made, counted = make()
    for name in NAMES:
        made.listen(name, counted.load(folders[name]).to(device()))
        assert {path.name.split("-")[1] for path in tmp_path.glob("said-*")} == {"teacher"}
    made.measure()
    assert set(made.rows) == set(NAMES)


# ── ragged rows ─────────────────────────────────────────────────────────────────────────────────────────────────────


def ragged(kind: str, folder: Path) -> tuple[Task, list[Example], list[Path]]:
    """A task, rows of very different lengths, and the folders of teacher and student."""
    if kind == "causal_lm":
        places = [tiny.save_language_model(folder / str(n), layers=1, seed=n) for n in range(2)]
        task = make_task("causal_lm", load_tokenizer(places[0]), 64)
        rows: list[dict[str, Any]] = [
            {"id": str(n), "where": "", **row, "completion": row["completion"] * (1 + n % 4)}
            for n, row in enumerate(tiny.completions(18))
        ]
        return task, task.encode(rows)[0], places
    places = [tiny.save_classifier(folder / str(n), layers=1 + n) for n in range(2)]
    task = make_task("classification", load_tokenizer(places[0]), 64, ["bad", "good"])
    lines = [
        {"id": str(n), "where": "", "text": " ".join([row["text"]] * (1 + n % 4)), "label": row["label"]}
        for n, row in enumerate(tiny.opinions(18))
    ]
    return task, task.encode(lines)[0], places


def in_file_order(task: Any, examples: list[Example], models: list[Any], size: int) -> dict[str, Any]:
    """The student's statistics beside the teacher's, batch by batch as the rows stand in the file."""
    parts = []
    for start in range(0, len(examples), size):
        some = examples[start : start + size]
        teacher, student = (task.scores(model, task.collate(some)) for model in models)
        parts.append(task.statistics(student, teacher, some))
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


@pytest.mark.parametrize("kind", ["causal_lm", "classification"])
@torch.no_grad()
def test_ragged_rows_are_read_with_less_padding_and_measured_the_same_in_the_order_of_the_file(
    kind: str, tmp_path: Path
) -> None:
    task, examples, places = ragged(kind, tmp_path)
    counted: Any = Counted(task)
    models = [task.load(place).to(device()) for place in places]
    evaluation = Evaluation(
        counted, {"eval": examples}, {"eval": _index(examples)}, tmp_path / "kept", 4, Silent()
    )
    for name, model in zip(("teacher", "student"), models, strict=True):
        evaluation.read(name, model)
    sorted_tokens, counted.tokens = counted.tokens, 0
    expected = with_merged_bins(in_file_order(counted, examples, models, 4))
    real = 2 * sum(len(example.input_ids) for example in examples)
    assert real <= sorted_tokens
    assert sorted_tokens - real < 0.4 * (counted.tokens - real), "padding"
    found = evaluation.rows["student"]["eval"]
    apart = {"nll_at", "nll_at_count"}  # of one position in 16, counted through the batches
    if kind == "classification":  # its bins follow from all confidences together, and these are of each batch
        apart |= {"even_conf", "even_acc"}
    assert found.keys() >= expected.keys()
    for column in expected.keys() - apart:
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-6, atol=1e-6, err_msg=column)


@pytest.mark.parametrize("kind", ["causal_lm", "classification"])
def test_early_stopping_and_a_quick_look_pad_as_little_and_say_the_same(kind: str, tmp_path: Path) -> None:
    task, examples, places = ragged(kind, tmp_path)
    counted: Any = Counted(task)
    model = task.load(places[0]).to(device())
    with torch.no_grad():
        rows = in_file_order(counted, examples, [model, model], 4)
    in_file = counted.tokens / 2
    counted.tokens = 0
    value = value_of(model, counted, examples, 4)
    assert counted.tokens < 0.8 * in_file
    assert value == pytest.approx(metric_of(task.metrics[task.headline], rows), abs=1e-6)
    counted.tokens = 0
    looked = look([places[0]], counted, examples, 4, Silent())
    assert counted.tokens < 0.8 * in_file
    np.testing.assert_allclose(looked["nll"], rows["nll"], atol=1e-5)


def test_a_teacher_that_was_asked_is_set_beside_the_rows_that_it_was_asked_about(tmp_path: Path) -> None:
    task, examples, places = ragged("classification", tmp_path)
    shares = np.random.default_rng(0).dirichlet([1.0, 1.0], len(examples))
    heard = {"eval": {"log_p": np.log(shares)}}
    sets, index = {"eval": examples}, {"eval": _index(examples)}
    evaluation = BlackBoxEvaluation(task, sets, index, tmp_path / "kept", 4, Silent(), heard, True)
    model = task.load(places[0]).to(device())
    evaluation.listen("student", model)
    evaluation.measure()
    with torch.no_grad():
        mine = [task.scores(model, task.collate([one])).hidden.softmax(-1).double() for one in examples]
    labels = [example.labels[0] for example in examples]
    expected = classification_rows(torch.cat(mine).numpy(), labels, shares)
    np.testing.assert_allclose(evaluation.rows["student"]["eval"]["kl"], expected["kl"], atol=1e-6)


def test_students_of_a_teacher_that_was_asked_are_read_once_for_what_it_said(tmp_path: Path) -> None:
    task, examples, places = ragged("classification", tmp_path)
    shares = np.random.default_rng(0).dirichlet([1.0, 1.0], len(examples))
    counted: Any = Counted(task)
    model = task.load(places[0]).to(device())

    def read(folder: str, said: Any) -> BlackBoxEvaluation:
        made = BlackBoxEvaluation(
            counted, {"eval": examples}, {"eval": _index(examples)}, tmp_path / folder, 4, Silent(),
            {"eval": {"log_p": np.log(said)}}, True, store=Store(tmp_path / "said"), contents={"eval": "these rows"},
        )  # fmt: skip
        counted.read = 0
        made.read("student", model, Source("folder:student", places[0]))
        return made

    first = read("first", shares)
    assert counted.read == len(examples)
    again = read("again", shares)
    assert counted.read == 0
    np.testing.assert_array_equal(again.rows["student"]["eval"]["kl"], first.rows["student"]["eval"]["kl"])
    other = read("other", shares[:, ::-1])
    assert counted.read == len(examples)
    assert (other.rows["student"]["eval"]["kl"] != first.rows["student"]["eval"]["kl"]).any()
