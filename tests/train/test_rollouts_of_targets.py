"""Targets that an encoder–decoder student writes itself: drawn as its decoder says, judged by the teacher, the same after a resume."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.data.encode import IGNORED, Example
from stillhouse.models.generate import write_on
from stillhouse.tasks import Batch, Task, make_task
from stillhouse.train.given import as_examples
from stillhouse.train.rollouts import BUFFER, Writing

FAMILIES = ["t5", "bart"]
WORDS = 36
"""What the tokenizer can say; the heads have more rows."""


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task("seq2seq", tiny.translator_tokenizer(), 32)


@pytest.fixture(scope="module")
def examples(task: Task) -> list[Example]:
    return as_examples(tiny.translations(6), task)


def other(family: str) -> PreTrainedModel:
    """A teacher that says something else."""
    model = tiny.translator(family, layers=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model


def draw(model: PreTrainedModel, task: Task, sources: list[list[int]], **changes: Any) -> list[list[int]]:
    plain = {"vocabulary": WORDS, "max_new_tokens": 8, "temperature": 1.0, "top_p": 1.0, "seed": 3}
    return write_on(model, task.tokenizer, sources, **{**plain, **changes})


# ── what is written ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", [*FAMILIES, "t5 untied", "t5 deeper in its decoder", "marian"])
def test_what_is_written_is_the_naive_target_of_each_source_whatever_stands_beside_it(
    family: str, task: Task, examples: list[Example]
) -> None:
    family, _, deeper = family.partition(" deeper")
    student = tiny.translator(family, layers=2, decoder_layers=3 if deeper else None).train()
    sources = [one.asked for one in examples]
    before = torch.get_rng_state()
    written = draw(student, task, sources)
    assert torch.equal(before, torch.get_rng_state()) and student.training
    assert written == draw(student, task, sources) != draw(student, task, sources, seed=4)
    sharp = draw(student, task, sources, temperature=1e-4)  # as good as the most probable token each time
    student.eval()
    for source, target in zip(sources, sharp, strict=True):
        said = [student.config.decoder_start_token_id]
        for token in target:
            with torch.no_grad():
                decoded = student(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([said]))
            logits = decoded.logits[0, -1, :WORDS]
            logits[0] = -torch.inf  # padding
            assert token == int(logits.argmax())
            said.append(token)
        assert 1 not in target[:-1] and (target[-1] == 1 or len(target) == 8)


def test_sources_are_read_once_and_the_decoder_reads_one_new_token_a_step(
    task: Task, examples: list[Example]
) -> None:
    student = tiny.translator("t5")
    student.config.use_cache = False
    read: dict[str, list[int]] = {"encoder": [], "decoder": []}
    for name, stack in (("encoder", student.get_encoder()), ("decoder", student.get_decoder())):
        stack.register_forward_pre_hook(
            lambda _, args, given, name=name: read[name].append(given["input_ids"].shape[1]), with_kwargs=True
        )
    sources = [one.asked for one in examples]
    steps = max(map(len, draw(student, task, sources)))
    assert read == {"encoder": [max(map(len, sources))], "decoder": [1] * steps} and steps > 2


def test_first_tokens_come_as_often_as_the_student_says_and_padding_never(
    task: Task, examples: list[Example]
) -> None:
    """Its own settings for writing would bias that."""
    student, source = tiny.translator("bart"), examples[3].asked
    student.generation_config.top_k, student.generation_config.num_beams = 2, 3
    with torch.no_grad():
        start = torch.tensor([[student.config.decoder_start_token_id]])
        logits = student(input_ids=torch.tensor([source]), decoder_input_ids=start).logits[0, -1, :WORDS]
        logits[0] = -torch.inf
        p = torch.softmax(logits, -1)
    drawn = [one[0] for seed in range(4) for one in draw(student, task, [source] * 500, max_new_tokens=1, seed=seed)]  # fmt: skip
    assert 0 not in drawn and max(drawn) < WORDS
    share = torch.bincount(torch.tensor(drawn), minlength=WORDS) / len(drawn)
    for token in p.topk(6).indices.tolist():
        expected = float(p[token])
        assert float(share[token]) == pytest.approx(expected, abs=5 * math.sqrt(expected / len(drawn)))
    assert student.generation_config.num_beams == 3


def test_a_target_never_grows_beyond_the_positions_that_the_family_has(
    task: Task, examples: list[Example]
) -> None:
    student = tiny.translator("bart")
    student.final_logits_bias[:, 1] = -1e4  # it never ends
    written = draw(student, task, [examples[0].asked], max_new_tokens=90)
    assert [len(one) for one in written] == [64]
    made = Writing(kd.rollouts(share=1.0, max_new_tokens=90), task, 0)
    (batch,) = made.some([task.collate(examples[:1])], student, 0, 0.0, 0)
    assert task.scores(student, batch).hidden.shape[0] == 64


# ── what is learned from it ─────────────────────────────────────────────────────────────────────────────────────────


def written_batch(student: PreTrainedModel, task: Task, examples: list[Example]) -> Batch:
    made = Writing(kd.rollouts(share=1.0, max_new_tokens=6), task, 0)
    (batch,) = made.some([task.collate(examples)], student, 0, 0.0, 0)
    return batch


@pytest.mark.parametrize("family", FAMILIES)
def test_the_students_targets_stand_at_the_sources_of_the_data(
    family: str, task: Task, examples: list[Example]
) -> None:
    student, plain = tiny.translator(family), task.collate(examples)
    batch = written_batch(student, task, examples)
    assert batch["written"] and torch.equal(batch["input_ids"], plain["input_ids"])
    assert torch.equal(batch["attention_mask"], plain["attention_mask"])
    targets = [row[row != IGNORED].tolist() for row in batch["labels"]]
    assert targets != [row[row != IGNORED].tolist() for row in plain["labels"]]
    assert all(1 <= len(target) <= 6 for target in targets)
    assert int(task.counted(batch).sum()) == sum(map(len, targets))
    assert set(task.scores(student, batch).labels.tolist()) == {IGNORED}, "nobody's hard targets"


def naive(student: PreTrainedModel, teacher: PreTrainedModel, batch: Batch) -> Tensor:
    """0.4·(what the policy gradient descends) + 0.6·KL(student ‖ teacher), row by row and token by token, ÷ all tokens."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for source, mask, label in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        ids, target = source[mask.bool()].unsqueeze(0), label[label != IGNORED].tolist()
        logs = []
        for model in (student, teacher):
            read = torch.tensor([[model.config.decoder_start_token_id, *target[:-1]]])
            logits = model(input_ids=ids, decoder_input_ids=read).logits[0, :, :WORDS]
            logs.append(logits.log_softmax(-1))
        log_q, log_p = logs[0], logs[1].detach()
        rewards = [float(log_p[at, token] - log_q[at, token].detach()) for at, token in enumerate(target)]
        for at, token in enumerate(target):
            later = sum(rewards[at:]) / len(rewards[at:])
            total = total - 0.4 * later * log_q[at, token]
            total = total + 0.6 * (log_q[at].exp() * (log_q[at] - log_p[at])).sum()
        count += len(target)
    return total / count


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_loops_over_rows_and_tokens(
    family: str, task: Task, examples: list[Example], tmp_path: Any
) -> None:
    student, teacher = tiny.translator(family, layers=2), other(family)
    batch = written_batch(student, task, examples)
    whole = copy.deepcopy(student).double()
    naive(whole, copy.deepcopy(teacher).double(), batch).backward()
    made = distiller(tmp_path, [kd.policy_gradient(0.4), kd.reverse_kl(0.6)], 1.0, student=student, teacher=teacher)  # fmt: skip
    made.model.eval()
    total = int(task.counted(batch).sum())
    made.compute_loss(made.model, batch, num_items_in_batch=torch.tensor(total)).backward()
    for (name, mine), theirs in zip(student.named_parameters(), whole.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad.float(), rtol=1e-3, atol=1e-6, msg=name)


def distiller(place: Any, objective: list[Any], share: float, **changes: Any) -> Distiller:
    replay = changes.pop("replay", 0.0)
    student = changes.pop("student", None) or tiny.translator("t5", layers=1)
    return Distiller(
        model=student,
        teacher=changes.pop("teacher", None) or other("t5"),
        objective=objective,
        rollouts=kd.rollouts(share=share, max_new_tokens=6, replay=replay),
        args=tiny.arguments(place, **{"max_steps": 4, **changes}),
        train_dataset=tiny.translations(8),
        processing_class=tiny.translator_tokenizer(),
    )


def test_a_run_that_stops_goes_on_bit_for_bit_with_the_targets_it_wrote(tmp_path: Any) -> None:
    common = {"save_strategy": "steps", "save_steps": 2, "replay": 0.4}
    whole = distiller(tmp_path / "run", [kd.reverse_kl()], 0.7, **common)
    whole.train()
    assert (tmp_path / "run" / "checkpoint-4" / BUFFER).stat().st_size > 0
    (tmp_path / "run" / "checkpoint-4").rename(tmp_path / "gone")
    resumed = distiller(tmp_path / "run", [kd.reverse_kl()], 0.7, **common)
    resumed.train(resume_from_checkpoint=True)
    for one, two in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_targets_of_its_own_alone_bring_the_student_towards_the_teacher(tmp_path: Any) -> None:
    made = distiller(tmp_path, [kd.reverse_kl()], 1.0, max_steps=16, per_device_train_batch_size=8)
    made.train()
    losses = [row["loss"] for row in made.state.log_history if "loss" in row]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
