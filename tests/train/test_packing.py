"""Rows that share sequences in training: every term says and teaches what it does about the same rows padded."""

import copy
from dataclasses import replace

import pytest
import torch
import transformers as hf
from torch import Tensor
from transformers import AutoModelForCausalLM

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.data.encode import remade
from stillhouse.models.load import load_tokenizer
from stillhouse.models.taps import tapped
from stillhouse.tasks import Layout, make_task
from stillhouse.teachers.local import LocalTeacher
from stillhouse.train.given import as_examples
from stillhouse.train.objective import Layers, Objective
from stillhouse.train.packing import packed_batch
from stillhouse.train.rollouts import Writing, judged

LAYERS = {
    "hidden": kd.hidden(),
    "hidden_cosine": kd.hidden(layers="last", distance="cosine"),
    "hidden_normalised": kd.hidden(layers={1: 2}, distance="normalised"),
    "embeddings": kd.embeddings(),
    "attention": kd.attention(),
    "attention_mse": kd.attention(distance="mse"),
    "relations_qq": kd.relations(of=["q"]),
    "relations_kk": kd.relations(of=["k"]),
    "relations_vv": kd.relations(of=["v"]),
    "gram": kd.similarity(),
    "rkd_distance": kd.similarity(by="rkd_distance"),
    "rkd_angle": kd.similarity(by="rkd_angle"),
    "cka": kd.similarity(by="cka"),
    "deeper_layers": kd.deeper_layers(layers=[1]),
}
SAID = {"forward_kl": kd.forward_kl(), "reverse_kl": kd.reverse_kl(), "policy_gradient": kd.policy_gradient()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    return {
        "teacher": tiny.save_language_model(base / "teacher", layers=3, width=64),
        "student": tiny.save_language_model(base / "student", layers=2, seed=1, width=32),
    }


@pytest.fixture(scope="module")
def task(folders):
    return make_task("causal_lm", load_tokenizer(folders["student"]), 48)


def models(folders, family):
    """(student, teacher), of different widths."""
    if family == "llama":
        return tuple(AutoModelForCausalLM.from_pretrained(folders[who]) for who in ("student", "teacher"))
    torch.manual_seed(0)  # GPT-2 adds what the positions are to what its first layer reads
    shapes = ({"n_embd": 32, "n_layer": 2}, {"n_embd": 64, "n_layer": 3})
    common = {"vocab_size": 448, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
    return tuple(hf.GPT2LMHeadModel(hf.GPT2Config(**common, **shape)) for shape in shapes)


def ragged(task):
    """Prompts with completions, short and long, and plain texts of which several make one row."""
    words = tiny.sentences(3, seed=6)
    rows = as_examples([*tiny.completions(7), *({"text": text} for text in words)], task)
    assert len({len(row.input_ids) for row in rows}) > 4 and any(len(row.starts) > 1 for row in rows)
    return rows


def prompted(count):
    """Every third prompt is long, and what is asked for is short."""
    return [
        {"prompt": " ".join(words[: 2 if number % 3 else 12]), "completion": " " + words[-1]}
        for number, words in enumerate(line.split() for line in tiny.sentences(count, seed=8))
    ]


def learned(task, student, teacher, term, batch) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and its gradient by everything that learns."""
    student = copy.deepcopy(student).eval()
    objective = Objective([term])
    objective.attach(student, teacher, task.outcomes, 0)
    targets = LocalTeacher(teacher, task).signal(batch, objective.teacher_points(0.0))
    with tapped(student, objective.points(0.0)) as mine:
        scores = task.scores(student, batch)
    if batch.get("written"):
        tokens = batch["labels"][:, 1:][task.counted(batch)]
        scores = replace(scores, written=judged(scores, targets, tokens))
    loss, _ = objective(scores, targets, 7.0, layers=Layers(mine, targets.features, task.layout(batch)))
    loss.backward()
    beside = [parameter for one in objective.beside for parameter in one.parameters()]
    gradients = [p.grad.flatten() for p in (*student.parameters(), *beside) if p.grad is not None]
    return loss.detach(), torch.cat(gradients)


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    (loss, gradient), (expected, wanted) = one, other
    assert float(wanted.norm()) > 0 and float(expected) != 0
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float((gradient - wanted).norm() / wanted.norm()) < 1e-4


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_term_about_layers_is_that_of_the_padded_batch_in_value_and_gradient(folders, task, name, family):
    """A row that saw its neighbour, or was pooled with it, would be compared with something else, without a word."""
    student, teacher = models(folders, family)
    rows = ragged(task)
    packed, padded = packed_batch(task, rows), task.collate(rows)
    assert len(packed["input_ids"]) < len(rows) - 2
    same(*(learned(task, student, teacher, LAYERS[name], batch) for batch in (packed, padded)))


def test_a_terms_value_on_packed_rows_is_no_longer_that_of_the_padded_batch_where_borders_are_unknown(
    folders, task
):
    """What the comparisons above would find."""
    student, teacher = models(folders, "llama")
    rows = ragged(task)
    packed = packed_batch(task, rows)
    for name, lost in (("hidden", "position_ids"), ("relations_vv", "position_ids"), ("gram", "rows")):
        blind = {key: value for key, value in packed.items() if key != lost}
        (loss, _), (expected, _) = (
            learned(task, student, teacher, LAYERS[name], batch) for batch in (blind, packed)
        )
        assert float(loss) != pytest.approx(float(expected), rel=1e-3)


def test_a_row_is_pooled_over_its_own_tokens_and_no_others(task):
    rows = ragged(task)
    for batch in (packed_batch(task, rows), task.collate(rows)):
        hidden = torch.randn(*batch["input_ids"].shape, 5, generator=torch.Generator().manual_seed(0))
        token = batch["input_ids"]
        tokens = {row.key: row.input_ids for row in rows}
        found = task.layout(batch).row_means(hidden)
        assert len(found) == len(rows)
        places = iter(
            (n, t) for n, length in enumerate(batch["lengths"].tolist()) for t in range(length)
        )  # rows come one after the other, in the order of the keys
        for key, mean in zip(batch["keys"], found, strict=True):
            at = [next(places) for _ in tokens[key]]
            assert [int(token[place]) for place in at] == tokens[key]
            naive = sum(hidden[place].double() for place in at) / len(at)
            torch.testing.assert_close(mean.double(), naive, rtol=1e-5, atol=1e-6)


def test_a_row_without_tokens_is_pooled_to_0_and_moves_no_other_rows_place():
    groups = torch.tensor([[0, 0, -1], [-1, -1, -1], [0, -1, -1], [-1, -1, -1]])
    layout = Layout(groups >= 0, torch.arange(3), groups, torch.tensor([0, 0, 2]))
    found = layout.row_means(torch.arange(12.0).reshape(4, 3, 1))
    assert found.tolist() == [[0.5], [0.0], [6.0], [0.0]]


@pytest.mark.parametrize("name", SAID)
def test_what_the_student_wrote_is_judged_in_packed_rows_as_in_padded_ones(folders, task, name):
    """The reward of a token is averaged to the end of its own row."""
    student, teacher = models(folders, "llama")
    rows = [
        remade(row, row.input_ids, row.labels, "rollout") for row in as_examples(tiny.completions(9), task)
    ]

    packed, padded = packed_batch(task, rows), task.collate(rows)
    assert len(packed["input_ids"]) < len(rows)
    same(
        *(
            learned(task, student, teacher, SAID[name], {**batch, "written": True})
            for batch in (packed, padded)
        )
    )


def test_the_student_goes_on_from_the_same_prompts_in_packed_rows(task):
    rows = ragged(task)
    packed, padded = packed_batch(task, rows), task.collate(rows)
    alone, found = (
        dict(zip(batch["keys"], task.prompts(batch, 6), strict=True)) for batch in (padded, packed)
    )
    assert len(alone) == len(rows) and found == alone


def made(folders, place, objective, **changes):
    rollouts, rows = changes.pop("rollouts", None), changes.pop("rows", None)
    student, teacher = models(folders, "llama")
    return Distiller(
        model=student,
        teacher=teacher,
        objective=objective,
        rollouts=rollouts,
        args=tiny.arguments(place, **{"max_steps": 4, "per_device_train_batch_size": 6, **changes}),
        train_dataset=rows or tiny.completions(12),
        processing_class=load_tokenizer(folders["student"]),
    )


def test_a_distiller_packs_whatever_the_objective_compares_and_whoever_writes(folders, tmp_path):
    terms, settings = [kd.hard(0.1), *LAYERS.values()], kd.rollouts(share=0.5, max_new_tokens=6, replay=0.3)
    one = made(folders, tmp_path, terms, rollouts=settings, rows=prompted(12))
    assert one.data_collator.func is packed_batch
    seen = []
    plain = one.get_batch_samples
    one.get_batch_samples = lambda *args: seen.append(plain(*args)) or seen[-1]
    one.train()
    batches = [batch for step, _ in seen for batch in step]
    assert {bool(batch.get("written")) for batch in batches} == {True, False}
    assert all(len(batch["input_ids"]) < len(batch["keys"]) == 6 for batch in batches)


def test_what_is_written_is_packed_as_the_rows_are(folders, task):
    student, _ = models(folders, "llama")
    rows = as_examples(prompted(8), task)
    settings = kd.rollouts(share=1.0, max_new_tokens=6)
    written = Writing(settings, task, 0, lambda some: packed_batch(task, some))
    (batch,) = written.some([packed_batch(task, rows)], student, 0, 0.0, 0)
    assert batch["written"] and len(batch["input_ids"]) < len(batch["keys"]) == len(rows)
    for key, number in zip(batch["keys"], range(len(rows)), strict=True):
        ids = batch["input_ids"][batch["rows"] == number].tolist()
        assert key == remade(rows[0], ids, batch["labels"][batch["rows"] == number].tolist(), "").key


# ── attention that is written out for a while ───────────────────────────────────────────────────────────────────────


def attending(one) -> list[tuple[str, str]]:
    """How student and teacher attend at each step; filled while it trains."""
    seen = []
    plain = one.compute_loss

    def look(*args, **kwargs):
        found = plain(*args, **kwargs)
        seen.append(tuple(m.config._attn_implementation for m in (one.model, one.teacher.model)))
        return found

    one.compute_loss = look
    return seen


@pytest.mark.parametrize(
    ("weight", "written"),
    [(kd.schedule(1.0, 0.0, over=0.5), [True, True, False, False]), (kd.schedule(0.0, 1.0), [False, True, True, True])],
)  # fmt: skip
def test_attention_is_written_out_only_while_its_schedule_is_above_0(folders, tmp_path, weight, written):
    one = made(folders, tmp_path, [kd.forward_kl(), kd.attention(weight)])
    seen = attending(one)
    one.train()
    assert seen == [("eager",) * 2 if maps else ("sdpa",) * 2 for maps in written]
    logs = [row["attention"] for row in one.state.log_history if "loss" in row]
    assert [value > 0 for value in logs] == written


def test_layers_are_not_tapped_for_a_term_whose_schedule_is_at_0(folders, tmp_path):
    one = made(folders, tmp_path, [kd.forward_kl(), kd.hidden(kd.schedule(0.0, 1.0)), kd.relations(of=["v"])])
    assert one.objective.points(0.0) == ["v.2"] and one.objective.teacher_points(0.0) == ["v.3"]
    assert one.objective.points(0.5) == ["hidden.1", "hidden.2", "v.2"]


def test_a_run_that_stops_where_attention_is_no_longer_written_out_goes_on_bit_for_bit(folders, tmp_path):
    """What the student writes at a step, and the step itself, must not depend on how it attended before the stop."""
    common = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 3e-2, "max_steps": 4}
    objective = [kd.reverse_kl(), kd.attention(kd.schedule(1.0, 0.0, over=0.5))]
    settings = kd.rollouts(share=0.8, max_new_tokens=6)
    whole = made(folders, tmp_path / "run", objective, rollouts=settings, **common)
    whole.train()
    (tmp_path / "run" / "checkpoint-4").rename(tmp_path / "gone")
    resumed = made(folders, tmp_path / "run", objective, rollouts=settings, **common)
    seen, wrote, some = attending(resumed), [], resumed.rollouts.some
    resumed.rollouts.some = lambda *args: (
        wrote.append(resumed.model.config._attn_implementation) or some(*args)
    )
    resumed.train(resume_from_checkpoint=True)
    assert seen == [("sdpa", "sdpa")] * 2 and wrote == ["sdpa"] * 2
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("weight", [kd.schedule(1.0, 0.0), kd.schedule(0.0, 1.0)])
def test_rows_are_not_packed_if_they_would_see_one_another_once_attention_is_no_longer_written_out(
    folders, tmp_path, weight
):
    """Attention that heeds no borders (as flash attention in a batch of several sequences) may follow on one that does."""

    def blind(module, q, k, v, mask, **_):
        groups = q.shape[1] // k.shape[1]
        k, v = (side.repeat_interleave(groups, 1) for side in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2), None

    hf.AttentionInterface.register("blind", blind)
    hf.AttentionMaskInterface.register("blind", hf.AttentionMaskInterface()["eager"])
    student, teacher = models(folders, "llama")
    student.set_attn_implementation("blind")
    one = Distiller(
        model=student,
        teacher=teacher,
        objective=[kd.hard(), kd.attention(weight)],
        args=tiny.arguments(tmp_path),
        train_dataset=tiny.completions(8),
        processing_class=load_tokenizer(folders["student"]),
    )
    assert getattr(one.data_collator, "func", None) is not packed_batch
