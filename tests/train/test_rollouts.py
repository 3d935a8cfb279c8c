"""What the student writes itself: drawn from its own distribution, counted as it is, and the same after a resume."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from closed_form import written_out
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.errors import RecipeError
from stillhouse.losses import reverse_kl
from stillhouse.losses.parts import SoftmaxTerm
from stillhouse.losses.sequences import policy_gradient_parts
from stillhouse.models.generate import write_on
from stillhouse.models.load import load_tokenizer
from stillhouse.recipe import Adaptive, parse_recipe
from stillhouse.tasks import make_task
from stillhouse.teachers.local import LocalTeacher
from stillhouse.train.given import as_examples
from stillhouse.train.rollouts import BUFFER, AdaptiveShare, Writing, judged


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    return {
        "teacher": tiny.save_language_model(base / "teacher", layers=2),
        "student": tiny.save_language_model(base / "student", layers=1, seed=1),
    }


@pytest.fixture(scope="module")
def task(folders):
    return make_task("causal_lm", load_tokenizer(folders["student"]), 64)


def model(folders, name):
    return AutoModelForCausalLM.from_pretrained(folders[name])


def distiller(folders, place, objective, rollouts, rows=None, **changes):
    return Distiller(
        model=model(folders, "student"),
        teacher=model(folders, "teacher"),
        objective=objective,
        rollouts=rollouts,
        args=tiny.arguments(place, **{"max_steps": 2, **changes}),
        train_dataset=rows or tiny.completions(8),
        processing_class=load_tokenizer(folders["student"]),
    )


def test_what_is_written_is_the_naive_continuation_up_to_the_end_token_and_ends_with_it(folders, task):
    student = model(folders, "student").train()
    prompts = [[5, 6, 7], [8] * 9, [11]]
    before = torch.get_rng_state()
    settings = {"max_new_tokens": 30, "temperature": 1.0, "top_p": 1.0, "vocabulary": task.outcomes}
    written = write_on(student, task.tokenizer, prompts, seed=3, **settings)
    assert torch.equal(before, torch.get_rng_state())
    assert student.training
    assert written == write_on(student, task.tokenizer, prompts, seed=3, **settings)
    assert written != write_on(student, task.tokenizer, prompts, seed=4, **settings)
    sharp = {**settings, "temperature": 1e-4}  # as good as the most probable token each time
    for prompt, answer in zip(
        prompts, write_on(student, task.tokenizer, prompts, seed=3, **sharp), strict=True
    ):
        ids: list[int] = list(prompt)
        while len(ids) < len(prompt) + 30 and (
            len(ids) == len(prompt) or ids[-1] != task.tokenizer.eos_token_id
        ):
            with torch.no_grad():
                ids.append(int(student.eval()(torch.tensor([ids])).logits[0, -1, : task.outcomes].argmax()))
        assert answer == ids[len(prompt) :]


@pytest.mark.parametrize("cached", [True, False])
def test_after_the_prompt_the_student_reads_one_new_token_a_step_whatever_its_config_says(
    folders, task, cached
):
    """Some configs are saved with the cache off, for it is of no use in training; writing without it is quadratic."""
    student = model(folders, "student")
    student.config.use_cache = cached
    read: list[int] = []
    student.register_forward_pre_hook(
        lambda _, args, given: read.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    settings = {"max_new_tokens": 6, "temperature": 1.0, "top_p": 1.0, "vocabulary": task.outcomes}
    written = write_on(student.train(), task.tokenizer, [[5, 6, 7], [8] * 9], seed=3, **settings)
    steps = max(len(answer) for answer in written)
    assert steps > 2 and read == [9] + [1] * (steps - 1)


def test_a_models_own_sampling_settings_do_not_bias_what_is_drawn(folders, task):
    student = model(folders, "student")
    plain = {"vocabulary": task.outcomes, "max_new_tokens": 8, "temperature": 1.0, "top_p": 1.0, "seed": 0}
    free = write_on(student, task.tokenizer, [[5, 6]] * 20, **plain)
    student.generation_config.min_p = 0.9
    student.generation_config.no_repeat_ngram_size = 1
    assert write_on(student, task.tokenizer, [[5, 6]] * 20, **plain) == free
    assert student.generation_config.min_p == 0.9


def test_a_prompt_leaves_room_for_the_answer_and_does_not_cross_a_border_between_documents(folders, task):
    student = model(folders, "student")
    longest = student.config.max_position_embeddings
    (answer,) = write_on(
        student, task.tokenizer, [[5] * longest], vocabulary=task.outcomes, max_new_tokens=4, temperature=1.0, top_p=1.0,
        seed=0,
    )  # fmt: skip
    assert 1 <= len(answer) <= 4
    packed = as_examples([{"text": text} for text in tiny.sentences(8)], task)
    assert any(len(example.starts) > 1 for example in packed)
    for example, prompt in zip(packed, task.prompts(task.collate(packed), 50), strict=True):
        border = example.starts[1] if len(example.starts) > 1 else len(example.input_ids)
        assert len(prompt.input_ids) <= border
        assert prompt.input_ids == example.input_ids[: len(prompt.input_ids)]


def test_what_would_bias_or_could_not_be_judged_is_refused_in_python_too(folders, tmp_path):
    with pytest.raises(
        RecipeError, match="policy_gradient learns from what the student writes; add rollouts"
    ):
        distiller(folders, tmp_path, [kd.policy_gradient()], None)
    with pytest.raises(RecipeError, match=r"policy_gradient is biased by rollouts\.top_p"):
        distiller(folders, tmp_path, [kd.policy_gradient()], kd.rollouts(top_p=0.9))


def test_tokens_are_drawn_from_the_whole_distribution_and_not_from_its_fifty_best(folders, task):
    student = model(folders, "student")
    prompt = [5, 6, 7]
    with torch.no_grad():
        p = torch.softmax(student(torch.tensor([prompt])).logits[0, -1, : task.outcomes].float(), -1)
    drawn = [
        answer[0]
        for seed in range(4)
        for answer in write_on(
            student,
            task.tokenizer,
            [prompt] * 500,
            vocabulary=task.outcomes,
            max_new_tokens=1,
            temperature=1.0,
            top_p=1.0,
            seed=seed,
        )
    ]
    best = p.topk(50)
    outside = sum(token not in best.indices.tolist() for token in drawn) / len(drawn)
    expected = 1 - float(best.values.sum())
    assert expected > 0.1
    assert max(drawn) < task.outcomes < 448  # the head's padding is never drawn
    assert outside == pytest.approx(expected, abs=5 * math.sqrt(expected / 2000))


def test_prompts_are_those_of_the_rows_and_a_plain_texts_beginning(folders, task):
    examples = as_examples(tiny.completions(4), task)
    batch = task.collate(examples)
    for example, prompt in zip(examples, task.prompts(batch, 5), strict=True):
        first = next(n for n, label in enumerate(example.labels) if label >= 0)
        assert prompt.input_ids == example.input_ids[:first]
    plain = as_examples([{"text": text} for text in tiny.sentences(8)], task)
    found = task.prompts(task.collate(plain), 5)
    assert [len(prompt.input_ids) for prompt in found] == [5] * len(plain)


def test_positions_are_counted_after_the_student_wrote_and_hard_targets_leave_its_words_alone(
    folders, tmp_path
):
    """A count of the rows that were replaced would scale the gradient by the ratio of the lengths."""
    made = distiller(
        folders, tmp_path, [kd.hard(0.5), kd.forward_kl(0.5)], kd.rollouts(share=1.0, max_new_tokens=3),
        max_steps=1, logging_steps=1,
    )  # fmt: skip
    seen = []
    plain = made.get_batch_samples
    made.get_batch_samples = lambda *args: seen.append(plain(*args)) or seen[-1]
    made.train()
    ((batches, total),) = seen
    assert all(batch["written"] for batch in batches)
    assert int(total) == sum(int(made.task.counted(batch).sum()) for batch in batches)
    assert int(total) <= 3 * 8
    assert made.state.log_history[0]["hard"] == 0.0
    assert made.state.log_history[0]["forward_kl"] > 0.0


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_about_the_share_asked_for_is_written_and_the_choice_follows_from_the_seed_alone(
    folders, task, share
):
    examples = as_examples(tiny.completions(2), task)
    student, batch = model(folders, "student"), None

    def chosen(seed, rank):
        made = Writing(kd.rollouts(share=share, max_new_tokens=1), task, seed)
        nonlocal batch
        batch = task.collate(examples)
        return [
            bool(one.get("written"))
            for step in range(40)
            for one in made.some([batch, batch], student, step, 0.0, rank)
        ]

    first = chosen(0, 0)
    assert first == chosen(0, 1)
    assert sum(first) / 80 == pytest.approx(share, abs=0.15)
    if share == 0.4:
        assert first != chosen(1, 0)


def test_a_schedule_moves_the_share(folders, task):
    batch = task.collate(as_examples(tiny.completions(2), task))
    made = Writing(kd.rollouts(share=kd.schedule(0.0, 1.0), max_new_tokens=1), task, 0)
    student = model(folders, "student")
    for progress, expected in ((0.0, False), (1.0, True)):
        found = [bool(made.some([batch], student, s, progress, 0)[0].get("written")) for s in range(20)]
        assert set(found) == {expected}


def test_replayed_rows_are_ones_that_were_written_and_come_back_from_a_checkpoint(folders, task, tmp_path):
    batch = task.collate(as_examples(tiny.completions(4), task))
    settings = kd.rollouts(share=1.0, replay=0.5, buffer=8, max_new_tokens=4)
    student = model(folders, "student")
    made = Writing(settings, task, 0)
    keys = [key for step in range(20) for key in made.some([batch], student, step, 0.0, 0)[0]["keys"]]
    assert len(set(keys)) < 0.8 * len(keys)
    made.save(tmp_path)
    again = Writing(settings, task, 0)
    again.restore(tmp_path)
    for step in range(20, 26):
        one, other = (side.some([batch], student, step, 0.0, 0)[0] for side in (made, again))
        assert one["keys"] == other["keys"]


def test_a_run_that_stops_goes_on_bit_for_bit_with_what_it_wrote(folders, tmp_path):
    common = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2, "max_steps": 4}
    settings = kd.rollouts(share=0.7, replay=0.4, max_new_tokens=6)
    whole = distiller(folders, tmp_path / "run", [kd.reverse_kl()], settings, **common)
    whole.train()
    assert (tmp_path / "run" / "checkpoint-4" / BUFFER).exists()
    (tmp_path / "run" / "checkpoint-4").rename(tmp_path / "gone")
    resumed = distiller(folders, tmp_path / "run", [kd.reverse_kl()], settings, **common)
    resumed.train(resume_from_checkpoint=True)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_rewards_are_the_naive_ones_averaged_to_the_end_of_each_row(folders, task):
    examples = as_examples(tiny.completions(3), task)
    batch = task.collate(examples)
    student, teacher = model(folders, "student").eval(), model(folders, "teacher")
    with torch.no_grad():
        scores = task.scores(student, batch)
        tokens = batch["labels"][:, 1:][task.counted(batch)]
        found = judged(scores, LocalTeacher(teacher, task).signal(batch), tokens)
        at = 0
        for example in examples:
            ids = torch.tensor([example.input_ids])
            places = [n - 1 for n, label in enumerate(example.labels) if n and label >= 0]
            own, whose = (
                torch.log_softmax(m.eval()(ids).logits[0, :, : task.outcomes].double(), -1)[
                    places, ids[0, [p + 1 for p in places]]
                ]
                for m in (student, teacher)
            )
            reward = whose - own
            for number in range(len(places)):
                assert float(found.reward[at]) == pytest.approx(float(reward[number]), abs=1e-4)
                assert float(found.later[at]) == pytest.approx(float(reward[number:].mean()), abs=1e-4)
                at += 1
    assert at == len(tokens)


def test_over_all_draws_the_policy_gradient_is_that_of_the_reverse_kl():
    """Rows of one token: the mean over the student's own distribution must be the exact gradient."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(1, 7, generator=generator), torch.randn(1, 7, generator=generator)
    leaf = student.double().requires_grad_()
    exact = reverse_kl(leaf, teacher)
    (slope,) = torch.autograd.grad(exact.sum(), leaf)
    log_q, log_p = torch.log_softmax(student, -1), torch.log_softmax(teacher, -1)
    value, total = torch.zeros(1), torch.zeros(1, 7)
    for token in range(7):
        at = torch.tensor([token])
        reward = (log_p - log_q)[:, token]
        nats, gradient = written_out(
            student,
            SoftmaxTerm(
                1.0, lambda _, at=at: at.unsqueeze(-1), lambda *_, r=reward: policy_gradient_parts(r, r)
            ),
        )
        weight = float(log_q[0, token].exp())
        value += weight * nats
        total += weight * gradient
    assert float(value) == pytest.approx(float(exact), rel=1e-5)
    torch.testing.assert_close(total.double(), slope, rtol=1e-4, atol=1e-6)


def test_the_policy_gradient_alone_brings_the_student_towards_the_teacher(folders, tmp_path, task):
    made = distiller(
        folders, tmp_path, [kd.policy_gradient()], kd.rollouts(share=1.0, max_new_tokens=4),
        rows=tiny.completions(32), max_steps=60, per_device_train_batch_size=32, learning_rate=1e-2, logging_steps=5,
    )  # fmt: skip
    start = copy.deepcopy(made.model)
    made.train()
    batch = task.collate(as_examples(tiny.completions(8), task))
    teacher = LocalTeacher(model(folders, "teacher"), task).signal(batch)
    with torch.no_grad():
        before, after = (
            float(reverse_kl(scores.head.logits(scores.hidden), teacher.logits(slice(None))).mean())
            for scores in (task.scores(one.eval(), batch) for one in (start, made.model))
        )
    assert after < 0.9 * before


# ── a share that follows the validation loss ────────────────────────────────────────────────────────────────────────


def test_the_share_grows_by_a_step_when_the_loss_is_no_lower_than_before_and_never_beyond_the_most():
    share = AdaptiveShare(Adaptive(start=0.1, step=0.3, most=0.6, tolerance=0.05))
    seen = []
    for loss in (5.0, 4.0, 4.04, 4.1, 3.0, 3.2, 3.2):
        share.look(loss)
        seen.append(round(share.share, 6))
    #        first, fell, within the tolerance, 4.1 ≥ 4.04 + 0.05, fell, rose (to the most), equal but within the tolerance
    assert seen == [0.1, 0.1, 0.1, 0.4, 0.4, 0.6, 0.6]
    still = AdaptiveShare(Adaptive(start=0.0, step=0.25))
    for _ in range(3):
        still.look(2.0)  # not falling is enough
    assert still.share == 0.5


def adapting(folders, place, **changes):
    return Distiller(
        model=model(folders, "student"),
        teacher=model(folders, "teacher"),
        objective=[kd.reverse_kl(0.8), kd.hard(0.2)],
        rollouts=kd.rollouts(share=kd.adaptive_share(step=0.5, every=2), max_new_tokens=6),
        args=tiny.arguments(
            place,
            **{"max_steps": 10, "save_strategy": "steps", "save_steps": 4, "learning_rate": 0.3, **changes},
        ),  # so high that the loss rises
        train_dataset=tiny.completions(16),
        eval_dataset=tiny.completions(5, seed=9),
        processing_class=load_tokenizer(folders["student"]),
    )


def test_the_share_follows_the_real_loss_and_a_resumed_run_is_the_same_bit_for_bit(folders, tmp_path):
    whole = adapting(folders, tmp_path / "run")
    whole.train()
    looks = [entry["eval_loss"] for entry in whole.state.log_history if "eval_loss" in entry]
    shares = [entry["written_share"] for entry in whole.state.log_history if "loss" in entry]
    assert len(looks) == 5
    risen = [0.0]
    for before, after in pairwise(looks):
        risen.append(min(1.0, risen[-1] + 0.5 * (after >= before)))
    assert shares == [0.0, 0.0, *(share for share in risen[:-1] for _ in range(2))]
    assert risen[-1] > 0 and whole.rollouts.share(1.0) == risen[-1]
    (tmp_path / "run" / "checkpoint-10").rename(tmp_path / "gone")
    resumed = adapting(folders, tmp_path / "run")
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-8"))
    assert resumed.rollouts.adaptive.state == whole.rollouts.adaptive.state
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_evaluation_that_somebody_else_asked_for_does_not_move_the_share(folders, tmp_path):
    one, often = (
        adapting(folders, tmp_path / str(steps), eval_strategy="steps", eval_steps=steps) for steps in (2, 1)
    )
    one.train()
    often.train()
    assert one.rollouts.adaptive.state == often.rollouts.adaptive.state


def test_looks_that_would_tell_nothing_are_refused(folders, tmp_path):
    share = Adaptive()
    for objective, match in (
        ([kd.policy_gradient()], "policy_gradient says nothing about rows"),
        ([kd.reverse_kl(kd.schedule(0.0, 1.0))], "which the schedule of reverse_kl changes"),
        ([kd.reverse_kl()], "stops falling; give one"),
    ):
        with pytest.raises(RecipeError, match=match):
            distiller(folders, tmp_path, objective, kd.rollouts(share=share))
    recipe = {"label": {"online": True}, "rollouts": {"share": {"start": 0.1, "step": 0.2}}}
    with pytest.raises(RecipeError, match=r"there are none; set data.validation: 0.1"):
        parse_recipe(tiny.language_recipe(tmp_path, **recipe))
    with pytest.raises(RecipeError, match="above most"):
        parse_recipe(
            tiny.language_recipe(tmp_path, **{**recipe, "rollouts": {"share": {"start": 0.5, "most": 0.2}}})
        )
