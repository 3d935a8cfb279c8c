"""Distiller: the gradient does not depend on how a step is cut up, and the teacher's signal reaches the loss."""

import copy

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaForCausalLM,
    TrainerCallback,
)

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.errors import DataError, RecipeError
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.tasks import make_task
from stillhouse.teachers import cache as cache_module
from stillhouse.teachers.cache import CachedTeacher, SoftTargetCache
from stillhouse.teachers.labelling import ask
from stillhouse.teachers.local import LocalTeacher
from stillhouse.train.given import as_examples
from stillhouse.train.order import SeededOrder

BOTH = [kd.hard(0.3), kd.forward_kl(0.7, temperature=2.0)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    return {
        "teacher": tiny.save_language_model(base / "teacher", layers=2),
        "other": tiny.save_language_model(base / "other", layers=2, seed=5),
        "student": tiny.save_language_model(base / "student", layers=1, seed=1),
        "classifier": tiny.save_classifier(base / "classifier", layers=2),
        "small": tiny.save_classifier(base / "small", layers=1),
    }


def model(folders, name: str):
    auto = AutoModelForSequenceClassification if name in ("classifier", "small") else AutoModelForCausalLM
    return auto.from_pretrained(folders[name])


class Gradients(TrainerCallback):
    """Keeps the gradient of every optimiser step, as one vector."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.steps.append(
            torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
        )


def distiller(folders, place, *, teacher="teacher", objective=BOTH, rows=None, student="student", **changes):
    gradients = Gradients()
    made = Distiller(
        model=model(folders, student),
        teacher=model(folders, teacher) if isinstance(teacher, str) else teacher,
        objective=objective,
        args=tiny.arguments(place, **{"max_steps": 1, "max_grad_norm": 0, **changes}),
        train_dataset=rows if rows is not None else tiny.completions(8),
        processing_class=load_tokenizer(folders[student]),
        callbacks=[gradients],
    )
    made.gradients = gradients
    return made


def train(*args, **kwargs):
    made = distiller(*args, **kwargs)
    made.train()
    return made


# ── one reduction ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cut", [(4, 2), (2, 4), (1, 8), (3, 3)])
def test_the_gradient_and_the_logged_loss_do_not_depend_on_how_a_step_is_accumulated(folders, tmp_path, cut):
    whole = train(folders, tmp_path, per_device_train_batch_size=8)
    rows, micro = cut
    parts = train(folders, tmp_path, per_device_train_batch_size=rows, gradient_accumulation_steps=micro)
    (one,), (other,) = whole.gradients.steps, parts.gradients.steps
    assert (one - other).norm() / one.norm() < 1e-6
    for name in ("loss", "hard", "forward_kl"):
        assert parts.state.log_history[0][name] == pytest.approx(whole.state.log_history[0][name], rel=1e-5)


def test_a_mean_of_each_micro_batch_would_give_another_gradient_so_the_lengths_are_ragged_enough(
    folders, tmp_path
):
    examples = as_examples(tiny.completions(8), make_task("causal_lm", load_tokenizer(folders["student"])))
    counts = [example.counted for example in examples]
    assert max(counts) > 2 * min(counts)


def test_the_gradient_is_that_of_the_plain_dense_loss(folders, tmp_path):
    found = train(
        folders, tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4
    ).gradients.steps[0]
    student, teacher = model(folders, "student").eval(), model(folders, "teacher").eval()
    task = make_task("causal_lm", load_tokenizer(folders["student"]))
    examples = as_examples(tiny.completions(8), task)
    total, loss = sum(example.counted for example in examples), torch.zeros(())
    for example in examples:
        ids = torch.tensor([example.input_ids])
        mask = torch.tensor(example.labels)[1:] != -100
        z = student(ids).logits[0, :-1][mask][:, : task.outcomes]
        with torch.no_grad():
            t = teacher(ids).logits[0, :-1][mask][:, : task.outcomes]
        p = torch.softmax(t / 2, -1)
        kl = 4 * (p * (torch.log_softmax(t / 2, -1) - torch.log_softmax(z / 2, -1))).sum()
        hard = torch.nn.functional.cross_entropy(z, ids[0, 1:][mask], reduction="sum")
        loss = loss + (0.7 * kl + 0.3 * hard) / total
    loss.backward()
    expected = torch.cat([p.grad.flatten().double() for p in student.parameters()])
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_the_logged_terms_add_up_to_the_loss_also_when_accumulation_does_not_divide_the_epoch(
    folders, tmp_path
):
    made = train(
        folders, tmp_path, rows=tiny.completions(9), max_steps=7, per_device_train_batch_size=1,
        gradient_accumulation_steps=4, logging_steps=3,
    )  # fmt: skip
    logs = [entry for entry in made.state.log_history if "loss" in entry]
    assert len(logs) == 2
    for entry in logs:
        assert 0.3 * entry["hard"] + 0.7 * entry["forward_kl"] == pytest.approx(entry["loss"], rel=1e-4)


# ── the teacher's signal ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_loss_depends_on_the_teachers_weights(folders, tmp_path):
    one, other = (train(folders, tmp_path, teacher=name) for name in ("teacher", "other"))
    logs = [made.state.log_history[0] for made in (one, other)]
    assert logs[0]["hard"] == pytest.approx(logs[1]["hard"], rel=1e-6)
    assert abs(logs[0]["forward_kl"] - logs[1]["forward_kl"]) > 1e-3
    assert (one.gradients.steps[0] - other.gradients.steps[0]).norm() > 1e-3


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(folders, tmp_path):
    made = train(folders, tmp_path, teacher="student", objective=[kd.forward_kl()])
    assert made.state.log_history[0]["loss"] == pytest.approx(0.0, abs=1e-5)
    assert made.gradients.steps[0].norm() < 1e-4


def test_the_temperature_reaches_the_loss_and_its_gradient_does_not_fade(folders, tmp_path):
    gradients = {}
    for temperature in (1.0, 2.0, 8.0):
        objective = [kd.forward_kl(temperature=temperature)]
        gradients[temperature] = train(folders, tmp_path, objective=objective).gradients.steps[0]
    assert (gradients[1.0] - gradients[2.0]).norm() / gradients[1.0].norm() > 0.02
    assert gradients[8.0].norm() / gradients[2.0].norm() > 0.4  # without T² below 1/10


def test_the_weights_of_the_terms_reach_the_gradient(folders, tmp_path):
    hard, soft = (
        train(folders, tmp_path, objective=[term]) for term in (kd.hard(), kd.forward_kl(temperature=2.0))
    )
    both = train(folders, tmp_path)
    mixed = 0.3 * hard.gradients.steps[0] + 0.7 * soft.gradients.steps[0]
    assert (both.gradients.steps[0] - mixed).norm() / mixed.norm() < 1e-5


def test_an_objective_that_needs_a_teacher_is_refused_without_one(folders, tmp_path):
    with pytest.raises(RecipeError, match="teacher is None"):
        distiller(folders, tmp_path, teacher=None)


def test_a_teacher_that_shares_weights_with_the_student_is_refused_for_it_would_freeze_it(folders, tmp_path):
    student = model(folders, "small")
    common = {
        "objective": [kd.forward_kl()],
        "args": tiny.arguments(tmp_path, max_steps=1),
        "train_dataset": tiny.opinions(4),
        "processing_class": load_tokenizer(folders["small"]),
    }
    with pytest.raises(RecipeError, match="share weights"):
        Distiller(model=student, teacher=student, **common)
    assert all(parameter.requires_grad for parameter in student.parameters())
    Distiller(model=student, teacher=copy.deepcopy(student), **common).train()
    assert student.training


def test_a_model_that_treats_its_logits_in_an_unknown_way_is_refused_before_training(folders, tmp_path):
    class Odd(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 1.3
            return output

    with pytest.raises(RecipeError, match="treats its logits"):
        distiller(folders, tmp_path, teacher=Odd.from_pretrained(folders["teacher"]))


def test_the_teacher_stays_in_eval_mode_without_gradients_and_says_the_same_twice(folders, tmp_path):
    teacher = model(folders, "classifier").train()
    made = train(
        folders,
        tmp_path,
        teacher=teacher,
        student="small",
        rows=tiny.opinions(12),
        max_steps=3,
        learning_rate=0.1,
    )
    assert not teacher.training
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
    for name, value in model(folders, "classifier").state_dict().items():
        assert torch.equal(value, teacher.state_dict()[name])
    assert made.model.training  # the student keeps its dropout
    batch = made.task.collate(made.train_dataset[:6])
    teacher.train()
    once = made.teacher.signal(batch)
    teacher.train()
    again = made.teacher.signal(batch)
    assert torch.equal(once.hidden, again.hidden)
    assert not once.hidden.requires_grad
    with torch.no_grad():
        dropped = [teacher.train()(batch["input_ids"]).logits for _ in range(2)]
    assert not torch.equal(*dropped)  # the dropout was there to be forgotten


def test_the_students_wrapper_is_called_and_not_bypassed(folders):
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, *args, **kwargs):
            self.calls += 1
            return self.module(*args, **kwargs)

    for name, kind, rows in (
        ("student", "causal_lm", tiny.completions(3)),
        ("small", "classification", tiny.opinions(3)),
    ):
        task = make_task(kind, load_tokenizer(folders[name]), labels=["bad", "good"])
        wrapped = Wrapper(model(folders, name).eval())
        task.scores(wrapped, task.collate(as_examples(rows, task)))
        assert wrapped.calls == 1


# ── kept targets ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cached(folders, tmp_path):
    """A cache of all outcomes of the completions of the tests."""
    task = make_task("causal_lm", load_tokenizer(folders["teacher"]))
    cache = SoftTargetCache(
        tmp_path / "cache", {"temperature": 2.0, "top_k": "all", "samples": None, "outcomes": task.outcomes}
    )
    examples = as_examples(tiny.completions(12), task)
    ask(cache, LocalTeacher(model(folders, "teacher"), task), task, examples, 5, Silent())
    return CachedTeacher(cache), examples, task


def test_kept_targets_train_as_the_teacher_itself_does(folders, tmp_path, cached):
    teacher, examples, _ = cached
    common = {"rows": examples, "max_steps": 7, "per_device_train_batch_size": 5, "learning_rate": 1e-3}
    online, kept = train(folders, tmp_path, **common), train(folders, tmp_path, teacher=teacher, **common)
    for one, other in zip(online.state.log_history[:7], kept.state.log_history[:7], strict=True):
        assert other["forward_kl"] == pytest.approx(one["forward_kl"], rel=1e-3, abs=1e-3)
        assert other["hard"] == pytest.approx(one["hard"], rel=1e-3)
    one, other = online.gradients.steps[0], kept.gradients.steps[0]
    assert (one - other).norm() / one.norm() < 5e-3


def test_kept_targets_are_found_by_content_in_whatever_order_the_rows_come(folders, cached):
    teacher, examples, task = cached
    live = LocalTeacher(model(folders, "teacher"), task)
    for order in np.random.default_rng(0).permuted(np.tile(np.arange(12), (4, 1)), axis=1).tolist():
        batch = task.collate([examples[number] for number in order[:5]])
        kept = teacher.signal(batch)
        exact = live.topk(batch, task.outcomes, 2.0)
        dense = torch.zeros(len(kept), task.outcomes).scatter_(1, kept.ids, kept.log_p)
        torch.testing.assert_close(
            dense, torch.zeros_like(dense).scatter_(1, exact.ids, exact.log_p), rtol=2**-11, atol=1e-6
        )


class Watched(CachedTeacher):
    """Counts the batches whose targets were announced before they were asked for."""

    early = late = 0

    def signal(self, batch):
        self.early += tuple(batch["keys"]) in self._ahead
        self.late += tuple(batch["keys"]) not in self._ahead
        return super().signal(batch)


def test_reading_ahead_is_begun_for_every_batch_and_changes_no_bit(folders, tmp_path, cached, monkeypatch):
    examples = cached[1]
    common = {"rows": examples, "max_steps": 5, "per_device_train_batch_size": 3, "learning_rate": 1e-3}
    ahead = Watched(cached[0].cache)
    one = train(folders, tmp_path, teacher=ahead, gradient_accumulation_steps=2, **common)
    assert (ahead.early, ahead.late) == (10, 0)
    assert len(ahead._ahead) <= 4  # the loader was at the next epoch's batches, at most
    monkeypatch.setattr(CachedTeacher, "expect", lambda self, keys: None)
    monkeypatch.setattr(CachedTeacher, "signal", lambda self, batch: self._read(tuple(batch["keys"])))
    without = CachedTeacher(cached[0].cache)
    other = train(folders, tmp_path, teacher=without, gradient_accumulation_steps=2, **common)
    for mine, theirs in zip(one.gradients.steps, other.gradients.steps, strict=True):
        assert torch.equal(mine, theirs)


def test_with_workers_kept_targets_are_read_when_they_are_asked_for_which_is_said_and_changes_no_bit(
    folders, tmp_path, cached, capsys
):
    common = {"rows": cached[1], "max_steps": 2, "per_device_train_batch_size": 3}
    found = []
    for workers in (0, 1):
        teacher = Watched(cached[0].cache)
        found.append(train(folders, tmp_path, teacher=teacher, dataloader_num_workers=workers, **common))
        assert (teacher.early, teacher.late) == ((2, 0), (0, 2))[workers]
        said = "dataloader_num_workers: kept soft targets are not read ahead with it; leave it at 0"
        assert (said in capsys.readouterr().out) == bool(workers)
    for mine, theirs in zip(found[0].gradients.steps, found[1].gradients.steps, strict=True):
        assert torch.equal(mine, theirs)


def test_batches_that_nobody_asks_for_are_forgotten_and_a_missing_row_is_told_by_who_asks(
    cached, monkeypatch
):
    teacher, examples, task = cached
    monkeypatch.setattr(cache_module, "BATCHES_AHEAD", 2)
    for example in examples[:6]:
        teacher.expect([example.key])
    assert len(teacher._ahead) == 2
    assert len(teacher.signal(task.collate(examples[:1]))) == examples[0].counted
    batch = {**task.collate(examples[:2]), "keys": ["nobody's", examples[0].key]}
    teacher.expect(batch["keys"])
    with pytest.raises(DataError, match="no soft targets for the example nobody's"):
        teacher.signal(batch)


def test_kept_targets_of_another_temperature_are_refused_where_some_outcomes_are_not_kept(folders, tmp_path):
    task = make_task("causal_lm", load_tokenizer(folders["teacher"]))
    meta = {"temperature": 2.0, "top_k": 16, "samples": None, "outcomes": task.outcomes}
    cache = SoftTargetCache(tmp_path / "some", meta)
    examples = as_examples(tiny.completions(4), task)
    ask(cache, LocalTeacher(model(folders, "teacher"), task), task, examples, 5, Silent())
    with pytest.raises(RecipeError, match=r"temperature 1.0.*taken at 2.0"):
        train(
            folders,
            tmp_path,
            teacher=CachedTeacher(cache),
            rows=examples,
            objective=[kd.forward_kl(temperature=1.0)],
        )


def test_whole_distributions_serve_another_temperature_as_the_teacher_itself_does(folders, tmp_path, cached):
    teacher, examples, _ = cached
    common = {
        "rows": examples,
        "objective": [kd.forward_kl(temperature=1.0)],
        "per_device_train_batch_size": 5,
    }
    online, kept = train(folders, tmp_path, **common), train(folders, tmp_path, teacher=teacher, **common)
    (one,), (other,) = online.gradients.steps, kept.gradients.steps
    assert (one - other).norm() / one.norm() < 5e-3


def test_a_teacher_that_saw_other_tokens_is_refused(folders, tmp_path):
    class Short:
        def signal(self, batch):
            return LocalTeacher(
                model(folders, "teacher"), make_task("causal_lm", load_tokenizer(folders["teacher"]))
            ).signal({**batch, "labels": batch["labels"][:1], "input_ids": batch["input_ids"][:1]})

    with pytest.raises(RecipeError, match="do not see the same tokens"):
        train(folders, tmp_path, teacher=Short())


# ── plain rows, and what is refused ─────────────────────────────────────────────────────────────────────────────────

MESSAGES = [
    {"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": t[2:9]}]}
    for t in tiny.sentences(6)
]
PLAIN = {
    "text": ("student", [{"text": text} for text in tiny.sentences(12)]),
    "messages": ("student", MESSAGES),
    "prompt and completion": ("student", tiny.completions(6)),
    "text and label": ("small", tiny.opinions(6)),
    "text and the label's number": (
        "small",
        [{**row, "label": int(row["label"] == "good")} for row in tiny.opinions(6)],
    ),
}


@pytest.mark.parametrize("kind", list(PLAIN))
def test_plain_rows_train_without_any_recipe(folders, tmp_path, kind):
    student, rows = PLAIN[kind]
    teacher = "classifier" if student == "small" else "teacher"
    made = train(folders, tmp_path, student=student, teacher=teacher, rows=rows, max_steps=2)
    assert all(np.isfinite(entry["loss"]) for entry in made.state.log_history[:2])
    assert made.gradients.steps[0].norm() > 0


def test_a_labels_number_is_its_place_among_the_models_labels(folders, tmp_path):
    named, numbered = (
        [
            example.labels
            for example in distiller(
                folders, tmp_path, student="small", teacher="classifier", rows=rows
            ).train_dataset
        ]
        for rows in (PLAIN["text and label"][1], PLAIN["text and the label's number"][1])
    )
    assert named == numbered
    assert {0, 1} == {label for (label,) in named}


def test_rows_that_cannot_be_used_are_counted_aloud(folders, tmp_path):
    said: list[str] = []
    task = make_task("causal_lm", load_tokenizer(folders["student"]), 12)
    rows = [{"prompt": "a", "completion": " b"}, {"prompt": tiny.sentences(1)[0], "completion": " b"}]
    assert len(as_examples(rows, task, said.append)) == 1
    assert said == ["train_dataset: 1 of 2 rows dropped; row 2: no answer within max_length"]
    with pytest.raises(RecipeError, match="no row can be used: no answer within max_length"):
        as_examples(rows[1:], task, said.append)


def test_a_loss_of_nan_stops_the_run_with_a_sentence_and_is_not_filtered_from_the_log(folders, tmp_path):
    made = distiller(folders, tmp_path, max_steps=4, learning_rate=1e30, optim="sgd")
    with pytest.raises(RecipeError, match=r"training diverged: the loss is (nan|inf) at step \d"):
        made.train()


def test_reading_data_draws_nothing_and_the_order_follows_from_seed_and_epoch_alone(folders):
    torch.manual_seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    order = SeededOrder([5] * 50, 4, 7)
    first = list(order)
    order.epoch = 1
    second = list(order)
    task = make_task("causal_lm", load_tokenizer(folders["student"]))
    task.collate(as_examples(tiny.completions(5), task))
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second != list(SeededOrder([5] * 50, 4, 8))
    assert first == list(SeededOrder([5] * 50, 4, 7))


def test_bfloat16_gives_nearly_the_gradient_of_float32_and_the_students_weights_stay_float32(
    folders, tmp_path
):
    exact, rough = (train(folders, tmp_path, bf16=bf16) for bf16 in (False, True))
    one, other = exact.gradients.steps[0], rough.gradients.steps[0]
    assert 1e-5 < (one - other).norm() / one.norm() < 0.05
    assert rough.state.log_history[0]["loss"] == pytest.approx(exact.state.log_history[0]["loss"], rel=0.02)
    assert {parameter.dtype for parameter in rough.model.parameters()} == {torch.float32}


def test_each_epoch_reads_every_row_once_and_in_an_order_of_its_own(folders, tmp_path):
    class Recording(LocalTeacher):
        read: list[str] = []

        def signal(self, batch):
            self.read += batch["keys"]
            return super().signal(batch)

    task = make_task("causal_lm", load_tokenizer(folders["student"]))
    teacher = Recording(model(folders, "teacher"), task)
    made = train(folders, tmp_path, teacher=teacher, max_steps=4)  # two steps of four rows each an epoch
    first, second = teacher.read[:8], teacher.read[8:]
    assert set(first) == set(second) == {example.key for example in made.train_dataset}
    assert len(set(first)) == 8
    assert first != second


def test_the_trainers_own_evaluation_reads_plain_rows_and_needs_no_logits(folders, tmp_path):
    made = Distiller(
        model=model(folders, "student"),
        teacher=model(folders, "teacher"),
        objective=BOTH,
        args=tiny.arguments(tmp_path, max_steps=2, eval_strategy="steps", eval_steps=1),
        train_dataset=tiny.completions(8),
        eval_dataset=tiny.completions(3),
        processing_class=load_tokenizer(folders["student"]),
    )
    made.train()
    losses = [row["eval_loss"] for row in made.state.log_history if "eval_loss" in row]
    assert len(losses) == 2
    assert all(0 < loss < 20 for loss in losses)


def test_fp16_is_refused_because_its_scaler_would_not_survive_a_resume(folders, tmp_path):
    arguments = tiny.arguments(tmp_path)
    arguments.fp16 = True
    with pytest.raises(RecipeError, match="fp16"):
        Distiller(
            model(folders, "student"),
            model(folders, "teacher"),
            [kd.forward_kl()],
            arguments,
            processing_class=load_tokenizer(folders["student"]),
        )
