"""A teacher with another tokenizer, beside a student and in a whole run."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
import tongues
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.errors import RecipeError
from stillhouse.models.load import load_tokenizer
from stillhouse.recipe import parse_recipe
from stillhouse.static import static_checks
from stillhouse.tasks.bilingual import BilingualLM
from stillhouse.teachers.cross import CrossTeacher, Foreign
from stillhouse.train.objective import Objective
from typed import stillhouse, write_recipe


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("cross")
    return tiny.save_language_model(place / "teacher"), tongues.save_other_student(place / "student")


@pytest.fixture(scope="module")
def task(folders):
    return BilingualLM(load_tokenizer(folders[1]), load_tokenizer(folders[0]), 48)


def rows(count=6):
    return [{"id": str(n), "where": "", "text": text} for n, text in enumerate(tiny.sentences(count))]


@pytest.mark.parametrize("method", ["hybrid", "min_edit"])
def test_the_gradient_is_that_of_the_value_at_every_position(folders, task, method):
    """A span of several tokens is paid at its first one and pulls at all of them: checked by moving hidden states.

    (The sorted distance has a kink wherever two probabilities meet, so it is left to its own test.)"""
    model, teacher = task.load(folders[1]), CrossTeacher(task.load(folders[0]), task)
    batch = task.collate(task.encode(rows())[0][:3])
    targets = teacher.signal(batch)
    several = targets.spans[(targets.spans[:, 1] - targets.spans[:, 0]) > 1]
    assert len(several)
    scores = task.scores(model, batch)
    objective = Objective([kd.cross_tokenizer(method=method, temperature=1.5)])

    def loss(hidden):
        moved = type(scores)(hidden, scores.head.detached(), scores.labels, scores.rows)
        return objective(moved, targets, 1.0)[0]

    hidden = scores.hidden.detach()
    leaf = hidden.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf), leaf)
    spots = [int(several[0, 0]), int(several[0, 1]) - 1, int(targets.spans[-1, 0])]
    for spot in spots:
        way = torch.zeros_like(hidden)
        way[spot] = torch.randn(hidden.shape[1], generator=torch.Generator().manual_seed(spot))
        step = 2e-3
        expected = float((loss(hidden + step * way) - loss(hidden - step * way)) / (2 * step))
        assert float((slope * way).sum()) == pytest.approx(expected, rel=0.05, abs=5e-3)


def test_the_loss_depends_on_the_teachers_weights(folders, task):
    """The silent no-op: a teacher that is asked and never heard."""
    batch = task.collate(task.encode(rows())[0][:2])
    scores = task.scores(task.load(folders[1]), batch)
    objective = Objective([kd.cross_tokenizer()])
    found = []
    for factor in (1.0, 1.5):
        model = task.load(folders[0])
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(factor)
        found.append(objective(scores, CrossTeacher(model, task).signal(batch), 10.0)[0].item())
    assert found[0] > 0
    assert found[0] != pytest.approx(found[1], rel=1e-3)


def test_the_teacher_reads_its_own_tokens_and_bytes_are_counted_on_either_side(folders, task):
    examples = task.encode(rows())[0]
    batch = task.collate(examples)
    teacher, student = task.load(folders[0]), task.load(folders[1])
    theirs, mine = task.scores(teacher, batch), task.scores(student, batch)
    assert theirs.head.vocabulary == len(load_tokenizer(folders[0]))
    assert mine.head.vocabulary == len(load_tokenizer(folders[1]))
    sums = task.statistics(theirs, theirs, examples)
    own = task.statistics(mine, theirs, examples)
    assert "kl" not in own and "agree" not in own
    assert torch.equal(own["bytes"], torch.tensor([float(e.bytes) for e in examples]).double())
    assert (sums["bytes"] - own["bytes"]).abs().max() < 40
    assert (sums["tokens"] != own["tokens"]).any()


def test_a_distiller_brings_a_student_nearer_to_a_foreign_teacher(folders, tmp_path):
    student = AutoModelForCausalLM.from_pretrained(folders[1])
    made = Distiller(
        model=student,
        teacher=Foreign(AutoModelForCausalLM.from_pretrained(folders[0]), load_tokenizer(folders[0])),
        objective=[kd.cross_tokenizer()],
        args=tiny.arguments(tmp_path, max_steps=25, learning_rate=3e-2),
        train_dataset=tiny.completions(16),
        processing_class=load_tokenizer(folders[1]),
    )
    made.train()
    logs = [row["cross_tokenizer"] for row in made.state.log_history if "cross_tokenizer" in row]
    assert sum(logs[-4:]) < 0.7 * sum(logs[:4])


def test_a_distiller_renders_conversations_in_the_teachers_own_template(folders, tmp_path):
    said = [
        [{"role": "user", "content": "read"}, {"role": "assistant", "content": text}]
        for text in tiny.sentences(4)
    ]
    made = Distiller(
        model=AutoModelForCausalLM.from_pretrained(folders[1]),
        teacher=Foreign(AutoModelForCausalLM.from_pretrained(folders[0]), load_tokenizer(folders[0])),
        objective=[kd.cross_tokenizer()],
        args=tiny.arguments(tmp_path, max_steps=1),
        train_dataset=[{"messages": messages} for messages in said],
        processing_class=load_tokenizer(folders[1]),
    )
    made.train()
    (reading, *_) = made.task.readings(list(made.train_dataset))
    assert "<|im_start|>user" in load_tokenizer(folders[0]).decode(reading.example.input_ids)
    turns = (made.task.alignment.mine.end_of_turn(), made.task.alignment.theirs.end_of_turn())
    assert turns in made.task.vocabularies.shared


def test_the_same_tokenizer_on_both_sides_is_told_to_use_another_term(folders, tmp_path):
    made = Distiller(
        model=AutoModelForCausalLM.from_pretrained(folders[0]),
        teacher=AutoModelForCausalLM.from_pretrained(folders[0]),
        objective=[kd.cross_tokenizer()],
        args=tiny.arguments(tmp_path, max_steps=1),
        train_dataset=tiny.completions(4),
        processing_class=load_tokenizer(folders[0]),
    )
    with pytest.raises(RecipeError, match="use forward_kl"):
        made.train()


def values(folders, tmp_path, **changes):
    recipe = tiny.language_recipe(tmp_path, student={"model": str(folders[1])})
    wanted = {
        "label": {"online": True, "batch_size": 8},
        "objective": [{"kind": "cross_tokenizer", "weight": 0.8}, {"kind": "hard", "weight": 0.2}],
    }
    return {**recipe, **wanted, **changes}


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"objective": [{"kind": "forward_kl"}]}, "kind: cross_tokenizer"),
        ({"objective": [{"kind": "hidden"}]}, "kind: cross_tokenizer"),
        ({"label": {"top_k": 16}}, "set label.online: true"),
        ({"rollouts": {"share": 0.5}}, "remove them"),
    ],
)
def test_what_two_tokenizers_cannot_do_is_said_before_anything_is_loaded(folders, tmp_path, changes, remedy):
    with pytest.raises(RecipeError, match=remedy):
        static_checks(parse_recipe(values(folders, tmp_path, **changes)), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["text", "chat"])
def test_a_whole_run_with_two_tokenizers(folders, tmp_path, hurry, rows):
    recipe = values(folders, tmp_path)
    if rows == "chat":
        lines = [
            [{"role": "user", "content": f"read {n}"}, {"role": "assistant", "content": text}]
            for n, text in enumerate(tiny.sentences(60))
        ]
        text = "".join(json.dumps({"messages": said}) + "\n" for said in lines)
        (tmp_path / "chat.jsonl").write_text(text, encoding="utf-8")
        recipe |= {"data": {"train": {"source": str(tmp_path / "chat.jsonl")}, "split": 12, "max_length": 96}}
        recipe["evaluate"] = {"rows": 12, "resamples": 200}
    write_recipe(tmp_path / "r.yaml", recipe)
    said = stillhouse("run", tmp_path / "r.yaml", "--folder", tmp_path / "run", "--format", "json")
    assert said.code == 0, said.err
    kept = load_tokenizer(tmp_path / "run" / "student")
    assert kept.get_vocab() == load_tokenizer(folders[1]).get_vocab()
    again = stillhouse("run", tmp_path / "r.yaml", "--folder", tmp_path / "run", "--format", "json")
    assert again.code == 0 and "prepare" not in again.err
