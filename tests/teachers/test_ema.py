"""The student's moving average as its teacher."""

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.models.load import load_tokenizer
from stillhouse.teachers.ema import WEIGHTS, Ema


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_language_model(tmp_path_factory.mktemp("model") / "student", layers=1)


def distiller(folder, place, decay=0.9, **changes):
    return Distiller(
        model=AutoModelForCausalLM.from_pretrained(folder),
        teacher=Ema(decay),
        objective=[kd.hard(0.5), kd.forward_kl(0.5)],
        args=tiny.arguments(place, **{"max_steps": 4, "learning_rate": 1e-2, **changes}),
        train_dataset=tiny.completions(8),
        processing_class=load_tokenizer(folder),
    )


def test_the_teacher_is_the_naive_average_of_all_the_students_and_shares_no_weight_with_it(folder, tmp_path):
    made = distiller(folder, tmp_path, max_steps=3)
    seen = [[p.detach().clone().double() for p in made.model.parameters()]]

    class Watching(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            seen.append([p.detach().clone().double() for p in model.parameters()])

    made.add_callback(Watching())
    made.train()
    for place, parameter in enumerate(made.teacher.model.parameters()):
        expected = seen[0][place]
        for step in seen[1:]:
            expected = 0.9 * expected + 0.1 * step[place]
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-4, atol=1e-6)
    mine = {p.data_ptr() for p in made.model.parameters()}
    assert not mine & {p.data_ptr() for p in made.teacher.model.parameters()}
    assert not any(p.requires_grad for p in made.teacher.model.parameters())
    assert not made.teacher.model.training


def test_at_the_first_step_teacher_and_student_agree_and_later_they_do_not(folder, tmp_path):
    made = distiller(folder, tmp_path, logging_steps=1)
    made.train()
    logs = [row["forward_kl"] for row in made.state.log_history if "loss" in row]
    assert logs[0] == pytest.approx(0.0, abs=1e-5)
    assert min(logs[1:]) > 1e-4


def test_decay_one_is_the_student_as_it_began(folder, tmp_path):
    made = distiller(folder, tmp_path, decay=1.0)
    made.train()
    start = AutoModelForCausalLM.from_pretrained(folder)
    for one, other in zip(made.teacher.model.parameters(), start.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_that_stops_goes_on_bit_for_bit_with_its_average(folder, tmp_path):
    common = {"save_strategy": "steps", "save_steps": 2}
    whole = distiller(folder, tmp_path / "run", **common)
    whole.train()
    assert (tmp_path / "run" / "checkpoint-4" / WEIGHTS).exists()
    (tmp_path / "run" / "checkpoint-4").rename(tmp_path / "gone")
    resumed = distiller(folder, tmp_path / "run", **common)
    resumed.train(resume_from_checkpoint=True)
    for model in ("model", "teacher.model"):
        one, other = (torch.nn.ModuleList([_at(made, model)]) for made in (whole, resumed))
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)


def _at(made, path):
    for name in path.split("."):
        made = getattr(made, name)
    return made
