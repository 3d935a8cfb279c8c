"""Stop anywhere, damage anything, go on: the same weights, bit for bit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, TrainerCallback

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.models.load import load_tokenizer
from stillhouse.train.checkpoints import all_checkpoints, newest_sound

STEPS, ROWS = 9, 14  # batches of 4: four steps an epoch, the last one ragged


class Stop(TrainerCallback):
    """Stops after a step, as somebody who presses Ctrl-C does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    return {
        "teacher": tiny.save_classifier(base / "teacher", layers=1, width=24),
        "student": tiny.save_classifier(base / "student", layers=1, width=16),
    }


def fresh(
    folders, place: Path, stop: int | None = None, said: list[str] | None = None, **changes
) -> Distiller:
    """Everything anew, as in a new process; the global generator is somewhere else each time."""
    torch.seed()
    student = AutoModelForSequenceClassification.from_pretrained(folders["student"])
    assert student.config.hidden_dropout_prob > 0
    plain = {
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 2,
        "max_steps": STEPS,
        "warmup_steps": 3,
    }
    return Distiller(
        model=student,
        teacher=AutoModelForSequenceClassification.from_pretrained(folders["teacher"]),
        objective=[kd.hard(0.5), kd.forward_kl(0.5, temperature=2.0)],
        args=tiny.arguments(place, **{**plain, **changes}),
        train_dataset=tiny.opinions(ROWS),
        processing_class=load_tokenizer(folders["student"]),
        say=(said if said is not None else []).append,
        callbacks=[Stop(stop)] if stop else [],
    )


def weights(distiller: Distiller) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in distiller.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(folders, tmp_path_factory):
    place = tmp_path_factory.mktemp("whole")
    made = fresh(folders, place)
    made.train()
    return place, weights(made)


@pytest.fixture(scope="module")
def interrupted(folders, tmp_path_factory):
    """Stopped after step 7, with checkpoints 4 (an epoch's end) and 6."""
    place = tmp_path_factory.mktemp("cut")
    with pytest.raises(KeyboardInterrupt):
        fresh(folders, place, stop=7).train()
    assert [path.name for path in all_checkpoints(place)] == ["checkpoint-4", "checkpoint-6"]
    return place


@pytest.mark.parametrize("stop", [2, 3, 5, 8])
def test_a_run_stopped_anywhere_ends_with_the_same_bits_with_dropout_and_across_epochs(
    folders, uninterrupted, tmp_path, stop
):
    with pytest.raises(KeyboardInterrupt):
        fresh(folders, tmp_path, stop=stop).train()
    again = fresh(folders, tmp_path)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == STEPS
    assert same(weights(again), uninterrupted[1])


def test_it_does_so_too_where_accumulation_does_not_divide_the_epoch(folders, tmp_path):
    accumulate = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    whole = fresh(folders, tmp_path / "whole", **accumulate)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        fresh(folders, tmp_path / "cut", stop=5, **accumulate).train()
    again = fresh(folders, tmp_path / "cut", **accumulate)
    again.train(resume_from_checkpoint=True)
    assert same(weights(again), weights(whole))


def test_dropout_was_on_and_another_seed_gives_other_bits(folders, uninterrupted, tmp_path):
    other = fresh(folders, tmp_path, seed=8)
    other.train()
    assert not same(weights(other), uninterrupted[1])


def test_nothing_to_resume_from_is_a_beginning(folders, uninterrupted, tmp_path):
    made = fresh(folders, tmp_path)
    made.train(resume_from_checkpoint=True)
    assert same(weights(made), uninterrupted[1])


FILES = [
    "MANIFEST.json", "config.json", "model.safetensors", "optimizer.json", "optimizer.safetensors", "ranks.json", "scheduler.json",
    "tokenizer.json", "tokenizer_config.json", "trainer_state.json",
]  # fmt: skip


def test_these_are_all_the_files_of_a_checkpoint(interrupted):
    assert sorted(path.name for path in (interrupted / "checkpoint-6").iterdir()) == FILES


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


DAMAGES = {"truncated": truncate, "deleted": Path.unlink, "flipped": flip}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_newest_checkpoint_is_noticed_named_and_passed_over(interrupted, tmp_path, name, damage):
    shutil.copytree(interrupted, tmp_path / "run")
    DAMAGES[damage](tmp_path / "run" / "checkpoint-6" / name)
    said: list[str] = []
    found = newest_sound(tmp_path / "run", said.append)
    assert found == tmp_path / "run" / "checkpoint-4"
    assert len(said) == 1
    assert said[0].startswith("checkpoint-6 is damaged (")
    assert name in said[0]


@pytest.mark.parametrize(
    ("name", "damage"),
    [("model.safetensors", "flipped"), ("optimizer.safetensors", "deleted"), ("MANIFEST.json", "truncated")],
)
def test_after_a_damaged_checkpoint_the_run_still_ends_with_the_same_bits(
    folders, interrupted, uninterrupted, tmp_path, name, damage
):
    shutil.copytree(interrupted, tmp_path / "run")
    DAMAGES[damage](tmp_path / "run" / "checkpoint-6" / name)
    said: list[str] = []
    again = fresh(folders, tmp_path / "run", said=said)
    again.train(resume_from_checkpoint=True)
    assert any("checkpoint-6 is damaged" in line for line in said)
    assert same(weights(again), uninterrupted[1])


def test_when_all_are_damaged_the_run_begins_anew_and_says_so(folders, interrupted, uninterrupted, tmp_path):
    shutil.copytree(interrupted, tmp_path / "run")
    for path in all_checkpoints(tmp_path / "run"):
        flip(path / "model.safetensors")
    said: list[str] = []
    again = fresh(folders, tmp_path / "run", said=said)
    again.train(resume_from_checkpoint=True)
    assert len(said) == 2
    assert same(weights(again), uninterrupted[1])


def test_a_checkpoint_half_written_when_the_process_died_does_not_exist(interrupted, tmp_path):
    shutil.copytree(interrupted, tmp_path / "run")
    part = tmp_path / "run" / ".checkpoint-8.0badf00d.part"
    shutil.copytree(tmp_path / "run" / "checkpoint-6", part)
    assert newest_sound(tmp_path / "run", pytest.fail).name == "checkpoint-6"
    assert not part.exists()


def test_older_checkpoints_are_kept_while_the_newest_is_not_sound(interrupted, tmp_path):
    from stillhouse.train.checkpoints import rotate

    shutil.copytree(interrupted, tmp_path / "run")
    flip(tmp_path / "run" / "checkpoint-6" / "model.safetensors")
    rotate(tmp_path / "run", 1)
    assert len(all_checkpoints(tmp_path / "run")) == 2
    flip(tmp_path / "run" / "checkpoint-6" / "model.safetensors")  # and back
    rotate(tmp_path / "run", 1)
    assert [path.name for path in all_checkpoints(tmp_path / "run")] == ["checkpoint-6"]


def test_nothing_that_is_saved_is_a_pickle_and_no_teacher_hides_in_the_student(
    folders, uninterrupted, tmp_path
):
    place, trained = uninterrupted
    made = fresh(folders, tmp_path, max_steps=1)
    made.train()
    made.save_model(str(tmp_path / "student"))
    found = [path for folder in (place, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in found} <= {".safetensors", ".json", ".jinja"}
    for path in found:
        assert path.read_bytes()[:2] not in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")
    saved = load_file(tmp_path / "student" / "model.safetensors")
    assert set(saved) <= set(trained)


LOAD = """
import json, sys
sys.modules["stillhouse"] = None  # importing it is an error
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
tokens = AutoTokenizer.from_pretrained(sys.argv[1])("a good river", return_tensors="pt")
print(json.dumps([model(**tokens).logits.tolist(), model.config.id2label]))
"""


def test_the_saved_student_loads_where_stillhouse_is_not_installed(folders, tmp_path):
    made = fresh(folders, tmp_path, max_steps=1, save_strategy="no")
    made.train()
    made.save_model(str(tmp_path / "student"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    out = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "student")],
        env={**environment, "HF_HUB_OFFLINE": "1"}, cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    logits, labels = json.loads(out.splitlines()[-1])
    tokens = load_tokenizer(folders["student"])("a good river", return_tensors="pt")
    torch.testing.assert_close(
        torch.tensor(logits), made.model.eval()(**tokens).logits.detach(), rtol=1e-5, atol=1e-5
    )
    assert labels == {"0": "bad", "1": "good"}
