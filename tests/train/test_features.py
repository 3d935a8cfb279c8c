"""Terms that compare layers, in a real Distiller: what they see, what learns with them, and what is never saved."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.data.encode import remade
from stillhouse.errors import RecipeError
from stillhouse.models.load import load_tokenizer
from stillhouse.models.taps import layer_map, tapped
from stillhouse.tasks import make_task
from stillhouse.teachers.local import LocalTeacher
from stillhouse.train.features import PROJECTORS
from stillhouse.train.given import as_examples

TERMS = {
    "hidden": kd.hidden(),
    "hidden_cosine": kd.hidden(layers="last", distance="cosine"),
    "hidden_explicit": kd.hidden(layers={0: 1, 1: 2}, distance="normalised"),
    "embeddings": kd.embeddings(),
    "attention": kd.attention(),
    "attention_mse": kd.attention(distance="mse"),
    "relations": kd.relations(),
    "relations_vv": kd.relations(of=["v"], heads=2),
    "gram": kd.similarity(),
    "rkd_distance": kd.similarity(by="rkd_distance"),
    "rkd_angle": kd.similarity(by="rkd_angle"),
    "cka": kd.similarity(by="cka"),
}
PER_TOKEN = [name for name, term in TERMS.items() if term.kind != "similarity"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    return {
        "causal_lm": {
            "teacher": tiny.save_language_model(base / "teacher", layers=2, width=64),
            "student": tiny.save_language_model(base / "student", layers=1, seed=1, width=32),
        },
        "classification": {
            "teacher": tiny.save_classifier(base / "classifier", layers=2),
            "student": tiny.save_classifier(base / "small", layers=1, width=48),
        },
    }


def made(folders, place, term, task="causal_lm", alone=False, **changes) -> Distiller:
    auto = AutoModelForCausalLM if task == "causal_lm" else AutoModelForSequenceClassification
    rows = tiny.completions(8) if task == "causal_lm" else tiny.opinions(8)
    return Distiller(
        model=auto.from_pretrained(folders[task]["student"]),
        teacher=auto.from_pretrained(folders[task]["teacher"]),
        objective=[term] if alone else [kd.hard(0.5), term],
        args=tiny.arguments(place, **{"max_steps": 1, "max_grad_norm": 0, **changes}),
        train_dataset=rows,
        processing_class=load_tokenizer(folders[task]["student"]),
    )


@pytest.mark.parametrize("task", ["causal_lm", "classification"])
@pytest.mark.parametrize("name", TERMS)
def test_every_term_reports_its_value_and_reaches_the_students_layers(folders, tmp_path, name, task):
    distiller = made(
        folders,
        tmp_path,
        TERMS[name],
        task,
        alone=True,
        max_steps=40,
        learning_rate=3e-3,
        logging_steps=1,
        per_device_train_batch_size=8,
    )
    distiller.train()
    logs = [row[TERMS[name].kind] for row in distiller.state.log_history if "loss" in row]
    assert logs[0] > 0
    assert max(logs[-5:]) < 0.95 * logs[0]


@pytest.mark.parametrize("name", PER_TOKEN)
def test_a_per_token_terms_gradient_does_not_depend_on_how_a_step_is_accumulated(folders, tmp_path, name):
    found = []
    for rows, micro in ((8, 1), (2, 4)):
        distiller = made(
            folders, tmp_path / str(rows), TERMS[name], per_device_train_batch_size=rows,
            gradient_accumulation_steps=micro, learning_rate=0.1, optim="sgd",
        )  # fmt: skip
        before = torch.cat([p.detach().flatten() for p in distiller.model.parameters()])
        distiller.train()
        found.append(torch.cat([p.detach().flatten() for p in distiller.model.parameters()]) - before)
    assert (found[0] - found[1]).norm() / found[0].norm() < 1e-3


def test_terms_about_layers_that_weigh_0_cost_neither_fast_attention_nor_taps_nor_the_teacher(
    folders, tmp_path
):
    with_it, without = (
        made(folders, tmp_path, term, max_steps=2, logging_steps=1)
        for term in (kd.attention(0.0), kd.deeper_layers(0.0))
    )
    for one in (with_it, without):
        assert (
            one.model.config._attn_implementation == one.teacher.model.config._attn_implementation == "sdpa"
        )
        assert not one.objective.points(0.0) and not one.objective.beside
        one.train()
        assert set(one.state.log_history[0]) & {"attention", "deeper_layers", "hard"} == {"hard"}
    taps = made(folders, tmp_path, kd.attention(1e-6))
    assert taps.model.config._attn_implementation == "eager" and taps.objective.points(0.0)


def test_a_term_that_weighs_0_needs_no_teacher(folders, tmp_path):
    student = AutoModelForCausalLM.from_pretrained(folders["causal_lm"]["student"])
    common = {
        "model": student,
        "args": tiny.arguments(tmp_path, max_steps=1),
        "train_dataset": tiny.completions(4),
        "processing_class": load_tokenizer(folders["causal_lm"]["student"]),
    }
    terms = [kd.hard(), kd.forward_kl(0.0), kd.hidden(0.0), kd.policy_gradient(0.0), kd.cross_tokenizer(0.0)]
    Distiller(objective=terms, **common).train()
    with pytest.raises(RecipeError, match="teacher is None"):
        Distiller(objective=[kd.hard(), kd.forward_kl(1e-6)], **common)


def test_projectors_learn_are_in_the_checkpoint_come_back_and_are_never_in_the_student(folders, tmp_path):
    common = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2}
    whole = made(folders, tmp_path / "whole", TERMS["hidden"], max_steps=4, **common)
    before = {name: value.clone() for name, value in whole.objective.features.state_dict().items()}
    assert before
    whole.train()
    after = whole.objective.features.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    checkpoint = tmp_path / "whole" / "checkpoint-4"
    assert (checkpoint / PROJECTORS).exists()
    with safe_open(checkpoint / "model.safetensors", framework="pt") as tensors:
        assert not [name for name in tensors.keys() if "projector" in name]  # noqa: SIM118
    whole.save_model(str(tmp_path / "saved"))
    assert not (tmp_path / "saved" / PROJECTORS).exists()

    resumed = made(folders, tmp_path / "parts", TERMS["hidden"], max_steps=4, **common)
    resumed.args.output_dir = str(tmp_path / "whole")
    (tmp_path / "whole" / "checkpoint-4").rename(tmp_path / "gone")
    resumed.train(resume_from_checkpoint=True)
    again = resumed.objective.features.state_dict()
    assert all(torch.equal(after[name], again[name]) for name in after)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_feature_of_the_students_own_teacher_costs_nothing_if_they_are_the_same(folders, tmp_path):
    task = make_task("causal_lm", load_tokenizer(folders["causal_lm"]["teacher"]))
    folders = {
        "causal_lm": {"teacher": folders["causal_lm"]["teacher"], "student": folders["causal_lm"]["teacher"]}
    }
    for name, term in TERMS.items():
        distiller = made(folders, tmp_path / name, term)
        batch = task.collate(as_examples(tiny.completions(3), task))
        distiller.model.eval()
        targets, scores, layers = distiller._read(distiller.model, batch)
        _, parts = distiller.objective(scores, targets, 1.0, layers=layers)
        expected = 0.0 if name != "hidden_explicit" else None  # embeddings against a layer are something else
        assert expected is None or float(parts[1]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["hidden", "relations", "attention"])
def test_rows_packed_together_give_what_they_give_apart(folders, name):
    """Layers of one text must not be compared with those of its neighbour in the row, nor with padding."""
    tokenizer = load_tokenizer(folders["causal_lm"]["teacher"])
    task = make_task("causal_lm", tokenizer)
    packed = as_examples([{"text": text} for text in tiny.sentences(12)], task)
    apart = [
        remade(replace(example, starts=[0]), ids, [-100, *ids[1:]], example.row)
        for example in packed
        for ids in _texts(example)
    ]
    assert len(packed) < len(apart) / 2
    models = {
        who: AutoModelForCausalLM.from_pretrained(folders["causal_lm"][who]) for who in ("teacher", "student")
    }
    from stillhouse.train.objective import Layers, Objective

    objective = Objective([TERMS[name]])
    objective.attach(models["student"], models["teacher"], 448, 0)
    teacher = LocalTeacher(models["teacher"], task)

    def value(some):
        batch = task.collate(some)
        targets = teacher.signal(batch, objective.teacher_points(0.0))
        with torch.no_grad(), tapped(models["student"].eval(), objective.points(0.0)) as mine:
            scores = task.scores(models["student"], batch)
        layers = Layers(mine, targets.features, task.layout(batch))
        return float(objective(scores, targets, 1.0, layers=layers)[1][0])

    assert value(packed) == pytest.approx(sum(value([example]) for example in apart), rel=1e-3)


def _texts(example):
    """The ids of each text that was packed into the row; one of a single token has nothing to predict."""
    ends = [*example.starts[1:], len(example.input_ids)]
    texts = [example.input_ids[a:b] for a, b in zip(example.starts, ends, strict=True)]
    return [text for text in texts if len(text) > 1]


def test_a_term_about_layers_without_a_model_beside_the_student_is_refused(folders, tmp_path):
    class Silent:
        def signal(self, batch):
            raise AssertionError

    with pytest.raises(RecipeError, match=r"hidden compares layers.*label\.online"):
        Distiller(
            model=AutoModelForCausalLM.from_pretrained(folders["causal_lm"]["student"]),
            teacher=Silent(),
            objective=[kd.hidden()],
            args=tiny.arguments(tmp_path),
            train_dataset=tiny.completions(2),
            processing_class=load_tokenizer(folders["causal_lm"]["student"]),
        )


def test_layer_maps_are_what_their_names_say():
    assert layer_map("uniform", 3, 12) == {1: 4, 2: 8, 3: 12}
    assert layer_map("last", 3, 12) == {1: 10, 2: 11, 3: 12}
    assert layer_map("skip", 5, 12) == {1: 2, 2: 4, 3: 6, 4: 8, 5: 10}
    assert layer_map("uniform", 4, 2) == {1: 1, 2: 1, 3: 2, 4: 2}
    assert layer_map({0: 0, 2: 7}, 2, 12) == {0: 0, 2: 7}
    with pytest.raises(
        RecipeError, match="2: 13 is out of range; the student has 2 layers and the teacher 12"
    ):
        layer_map({2: 13}, 2, 12)
    with pytest.raises(RecipeError, match="use uniform"):
        layer_map("last", 4, 2)
