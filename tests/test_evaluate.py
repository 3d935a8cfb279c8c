"""What models say of held-out rows is read once, kept until it is measured, and measured side by side as it would be alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from stillhouse import evaluate
from stillhouse.data.encode import Example
from stillhouse.evaluate import Evaluation
from stillhouse.kept import RowIndex
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.tasks import Task, make_task

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
    """A task that counts how many rows each model has read."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def scores(self, model: Any, batch: Any) -> Any:
        """As the task's."""
        self.read += len(batch["keys"])
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
        together.listen(name, counted.load(folders[name]))
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
        alone.read(name, counted.load(folders[name]))
    same(together.rows, alone.rows)
    assert "kl" in alone.rows["student"]["eval"]
    assert alone.rows["student"]["eval"]["kl"].sum() > 0
    assert alone.rows["teacher"]["eval"]["kl"].sum() == 0


@pytest.mark.parametrize("stop", [0, 2, 5, 8])
def test_a_stopped_evaluation_goes_on_and_reads_nothing_twice_but_what_tells_a_models_head(
    stop: int, make: Made, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, counted = make()
    for name in NAMES:
        whole.listen(name, counted.load(folders[name]))
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
    models = {name: counted.load(folders[name]) for name in NAMES}
    with pytest.raises(KeyboardInterrupt):
        [first.listen(name, model) for name, model in models.items()]
    monkeypatch.setattr(evaluate, "save_tensors", save)

    again, counted = make()
    for name in NAMES:
        again.listen(name, counted.load(folders[name]))
    again.measure()
    same(again.rows, whole.rows)
    sizes = [4, 4, 1, 4, 1] * len(NAMES)
    begun = len(range(0, stop, 5))
    assert counted.read == sum(sizes[stop:]) + begun * sizes[0]


def test_a_measured_model_is_not_read_again_when_a_run_goes_on(make: Made, folders: dict[str, Path]) -> None:
    first, counted = make()
    for name in NAMES:
        first.listen(name, counted.load(folders[name]))
    first.measure()
    again, counted = make()
    for name in NAMES:
        again.listen(name, counted.load(folders[name]))
    again.measure()
    same(again.rows, first.rows)
    assert counted.read == 4, "one batch of the teacher's, for its head"


def test_what_students_said_does_not_pile_up_on_the_disk(
    make: Made, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "ENOUGH", 0)
    made, counted = make()
    for name in NAMES:
        made.listen(name, counted.load(folders[name]))
        assert {path.name.split("-")[1] for path in tmp_path.glob("said-*")} == {"teacher"}
    made.measure()
    assert set(made.rows) == set(NAMES)
