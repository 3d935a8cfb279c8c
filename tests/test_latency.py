"""Speeds are those of the work: the warm-up counts nothing, steady work is not measured for longer than it needs."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

import tiny
from stillhouse import cost, latency
from stillhouse.data.encode import Example
from stillhouse.latency import Requests, batches, beside_one_another, requests, settled
from stillhouse.measure import Interval
from stillhouse.models.load import load_tokenizer
from stillhouse.models.machine import device
from stillhouse.progress import Silent
from stillhouse.tasks import make_task
from stillhouse.tasks.panel import load_panel, write_panel
from stillhouse.tasks.writing import generate, greedy


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time that passes only when it is told to."""
    now = [0.0]
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(latency, "joules", lambda: 7.0 * now[0])

    def pass_(seconds: float) -> None:
        now[0] += seconds

    return pass_


def test_a_slow_first_call_is_not_in_the_speed(clock: Callable[[float], None]) -> None:
    took = iter([9.0] + [0.2] * 50)
    calls = []
    found = batches({"steady": lambda: (calls.append(1), clock(next(took)))})
    assert (found["steady"].seconds.value, found["steady"].joules.value) == pytest.approx((0.2, 1.4))
    assert len(calls) == 1 + latency.FEWEST


def test_unsteady_work_is_measured_longer_and_its_median_told(clock: Callable[[float], None]) -> None:
    times = [1.0, 1.0, 3.0, 1.1, 2.0, 1.2, 2.9]
    took = iter(times)
    assert batches({"unsteady": lambda: clock(next(took))})["unsteady"].seconds == Interval(
        pytest.approx(1.6), pytest.approx(1.0), pytest.approx(3.0)
    )


def test_short_work_is_repeated_until_a_moment_is_filled(clock: Callable[[float], None]) -> None:
    calls = []
    found = batches({"short": lambda: (calls.append(1), clock(0.001))})
    assert found["short"].seconds.value == pytest.approx(0.001)
    assert len(calls) >= latency.FEWEST * latency.MOMENT / 0.001


def test_one_model_that_is_settled_waits_for_the_other_so_that_both_meet_the_same_machine(
    clock: Callable[[float], None],
) -> None:
    order: list[str] = []
    unsteady = iter([1.0, 1.0, 2.0, 4.0, 1.0, 2.0, 4.0])
    batches(
        {
            "a": lambda: (order.append("a"), clock(0.5)),
            "b": lambda: (order.append("b"), clock(next(unsteady))),
        }
    )
    assert order[2:] == ["a", "b"] * latency.MOST


@pytest.mark.parametrize(
    ("times", "enough"),
    [
        ([1.0, 1.0], False),
        ([1.0, 1.01, 1.02], True),
        ([1.0, 1.5, 2.0], False),
        ([1.0] * 4 + [9.0], True),
        ([1.0, 2.0, 3.0] * 2, True),
    ],
)
def test_a_thing_is_known_when_the_middle_of_its_measurements_is_narrow(
    times: list[float], enough: bool
) -> None:
    assert settled(times) is enough


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return tiny.save_language_model(tmp_path_factory.mktemp("model"))


def rows(count: int) -> list[Example]:
    return [
        Example(str(n), str(n), list(range(4, 24 + n)), [-100, *range(5, 24 + n)], [0], 60)
        for n in range(count)
    ]


def test_a_request_tells_its_first_token_and_the_pace_of_the_others(folder, tmp_path) -> None:
    task = make_task("causal_lm", load_tokenizer(folder), 40)
    write_panel(tmp_path / "panel", [folder, folder])
    models = {
        "one": task.load(folder).to(device()),
        "panel": load_panel(task, tmp_path / "panel", torch.float32).to(device()),
    }
    found = requests(models, dict.fromkeys(models, task), dict.fromkeys(models, rows(5)))
    for one in found.values():
        assert len(one.waits) == latency.REQUESTS
        assert latency.FEWEST <= len(one.steps) <= latency.MOST
        assert min(one.waits) > 0
        assert min(one.steps) > 0
    told = found["one"].percentiles(task)
    assert told["what"] == "first token"
    assert told["p50"] <= told["p95"] <= told["p99"]
    middle, late = (told["intervals"][name] for name in ("p50", "p95"))
    waits = sorted(found["one"].waits)
    assert (middle["low"], middle["high"]) == (waits[2], waits[9]), "ranks 3 and 10 of 12: 96.1 %"
    assert (late["low"], late["high"]) == (waits[9], None), "the slowest of 12 is below it in 54 of 100 cases"


def test_a_classifier_has_answers_and_no_tokens(tmp_path) -> None:
    folder = tiny.save_classifier(tmp_path / "model")
    task = make_task("classification", load_tokenizer(folder), 40, ["bad", "good"])
    some = [Example(str(n), str(n), [2, 5, 6 + n, 3], [0], [0], 9) for n in range(4)]
    found = requests({"one": task.load(folder).to(device())}, {"one": task}, {"one": some})["one"]
    assert (len(found.waits), found.steps) == (latency.REQUESTS, [])
    assert found.percentiles(task)["what"] == "answer"


def test_the_energy_of_a_token_is_that_of_all_tokens_after_the_first(folder, monkeypatch) -> None:
    """7 joules a token: a counter that is looked at after the first token, and after the last, four later."""
    looks = iter(range(0, 10_000, 28))
    monkeypatch.setattr(latency, "joules", lambda: float(next(looks)))
    task, found = make_task("causal_lm", load_tokenizer(folder), 40), Requests()
    for row in rows(2):
        latency._write(task.load(folder).to(device()), task, row, 5, found)
    assert found.joules == pytest.approx([7.0, 7.0])


def test_a_batch_of_ragged_prompts_says_what_each_would_say_alone(tmp_path) -> None:
    folder = tiny.save_language_model(
        tmp_path / "model", pad_to=400
    )  # a head without rows that are no tokens
    task = make_task("causal_lm", load_tokenizer(folder), 40)
    model = task.load(folder).to(device())
    prompts = [list(range(4, 4 + length)) for length in (3, 11, 7, 1)]
    alone = [generate(model, task, torch.tensor([prompt]), 8).tolist() for prompt in prompts]
    assert greedy(model, task, prompts, 8) == alone


def test_texts_written_together_take_what_a_step_of_all_of_them_takes(
    clock: Callable[[float], None], folder, monkeypatch
) -> None:
    """A machine that needs 9 seconds for the prompts, and 0.5 a step whatever the number of texts."""
    shapes = []

    def written(model, task, ids, most, least, told):
        shapes.append(tuple(ids.shape))
        told.put(ids)
        for step in range(most):
            clock(0.5 if step else 9.0)
            told.put(ids[:, 0])

    monkeypatch.setattr(latency, "generate", written)
    task = make_task("causal_lm", load_tokenizer(folder), 40)
    found = beside_one_another(
        {"one": task.load(folder).to(device())}, {"one": task}, {"one": rows(3)}, {"one": 5}
    )
    assert found["one"] == [pytest.approx(0.5)] * latency.FEWEST
    assert set(shapes) == {(5, 11)}, "three rows stand for five, cut to the shortest prompt"
    assert len(shapes) == 1 + latency.FEWEST


STEADY = {"first": 0.3, "step": 0.02}


def test_what_is_foretold_of_requests_is_what_they_take_on_a_steady_machine(
    clock, folder, monkeypatch
) -> None:
    def written(model, task, row, most, found):
        clock(STEADY["first"] + (most - 1) * STEADY["step"])
        found.waits.append(STEADY["first"])
        if most > 1:
            found.steps.append(STEADY["step"])

    monkeypatch.setattr(latency, "_write", written)
    task = make_task("causal_lm", load_tokenizer(folder), 40)
    requests(dict.fromkeys("ab"), dict.fromkeys("ab", task), dict.fromkeys("ab", rows(3)))
    assert latency.time.perf_counter() == pytest.approx(2 * latency.requests_take(**STEADY))


@pytest.mark.parametrize("once", [0.2, 0.0126])
def test_what_is_foretold_of_batches_is_what_they_take_on_a_steady_machine(clock, once: float) -> None:
    batches(dict.fromkeys("ab", lambda: clock(once)))
    assert latency.time.perf_counter() == pytest.approx(2 * latency.batches_take(once), rel=0.01)


def test_what_is_foretold_of_texts_written_together_is_what_they_take_on_a_steady_machine(
    clock, folder, monkeypatch
) -> None:
    def written(model, task, ids, most, least, told):
        told.put(ids)
        for number in range(most):
            clock(STEADY["step"] if number else STEADY["first"])
            told.put(ids[:, 0])

    monkeypatch.setattr(latency, "generate", written)
    task = make_task("causal_lm", load_tokenizer(folder), 40)
    beside_one_another({"one": task.load(folder).to(device())}, {"one": task}, {"one": rows(3)}, {"one": 5})
    assert latency.time.perf_counter() == pytest.approx(latency.together_take(**STEADY))


def test_a_language_models_speeds_name_their_batches_and_a_panel_writes_alone(folder, tmp_path) -> None:
    task = make_task("causal_lm", load_tokenizer(folder), 40)
    write_panel(tmp_path / "panel", [folder, folder])
    models = {
        "one": task.load(folder).to(device()),
        "panel": load_panel(task, tmp_path / "panel", torch.float32).to(device()),
    }
    tasks, some = dict.fromkeys(models, task), dict.fromkeys(models, rows(5))
    asked = requests(models, tasks, some)
    found = cost.throughputs(models, tasks, some, asked, 3)
    assert found["one"]["batch"] == {"prefill": 3, "generate": 1, "generate_batch": 3}
    assert found["panel"]["batch"] == {"prefill": 3, "generate": 1}
    assert found["one"]["generate_batch"] > 0
    assert "generate_batch" not in found["panel"]


class Heard(Silent):
    """Who keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def note(self, text: str) -> None:
        self.told.append(("note", text))

    def step(self, what: str, done: int, total: int, extra: str = "") -> None:
        self.told.append((what, done, total))

    def end(self) -> None:
        self.told.append(("end",))


def test_each_part_of_measuring_speed_says_what_it_does_and_no_bar_moves_while_batches_are_timed(
    folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(cost, "fresh_peak", lambda *_: 1)
    task, heard = make_task("causal_lm", load_tokenizer(folder), 40), Heard()
    cost.costs(
        {"student": task.load(folder).to(device())},
        {"student": folder},
        task,
        rows(4),
        tmp_path / "eval.parquet",
        heard,
    )
    asked = latency.WARM_UP + latency.REQUESTS
    assert heard.told[: asked + 2] == [
        *(("timing requests", done, asked) for done in range(asked + 1)),
        ("end",),
    ]
    batches_, together, *memory = heard.told[asked + 2 :]
    assert "timing batches, 3 to 6 times" in str(batches_)
    assert "texts written together, 3 to 6 times" in str(together)
    assert memory == [("memory of a process of its own", done, 1) for done in (0, 1)]


@pytest.mark.parametrize(("wanted", "size"), [(None, cost.CLASSIFY_ROWS), (3, 3), (6, 6)])
def test_a_classifiers_batch_has_as_many_rows_as_are_told(wanted: int | None, size: int, tmp_path) -> None:
    folder = tiny.save_classifier(tmp_path / "model")
    task = make_task("classification", load_tokenizer(folder), 40, ["bad", "good"])
    read, scores = [], task.scores

    def counted(model, batch):
        read.append(len(batch["keys"]))
        return scores(model, batch)

    task.scores = counted  # type: ignore[method-assign]
    some = [Example(str(n), str(n), [2, 5, 6 + n, 3], [0], [0], 9) for n in range(4)]
    found = cost.throughputs(
        {"one": task.load(folder).to(device())}, {"one": task}, {"one": some}, {}, wanted
    )
    assert found["one"]["batch"] == {"rows": size}
    assert set(read) == {size}
