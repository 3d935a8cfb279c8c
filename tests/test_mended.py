"""Output that is damaged or gone after its stage was done, and folders that are not ours."""

import shutil
from pathlib import Path

import pytest
import transformers

import tiny
from conftest import Finished
from stillhouse.errors import TeacherError
from stillhouse.models.load import load_model
from stillhouse.train.checkpoints import newest_sound, rotate
from typed import stillhouse


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_a_shard_harmed_after_labelling_was_done_is_asked_for_again_and_nothing_is_trained_anew(
    finished: Finished, copied: Path, hurry: None, harm: str
) -> None:
    (shard,) = (copied / "label").glob("targets-*/*.parquet")
    content = shard.read_bytes()
    match harm:
        case "flip":
            shard.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        case "truncate":
            shard.write_bytes(content[:-7])
        case "delete":
            shard.unlink()
    trained = (copied / "train" / "DONE.json").read_bytes()
    said = stillhouse("run", finished.recipe, "--folder", copied)
    assert said.code == 0, said.err
    assert "what is missing is made again" in said.err
    assert len(list((copied / "label").glob("targets-*/*.parquet"))) == 1
    assert (copied / "train" / "DONE.json").read_bytes() == trained


@pytest.mark.parametrize("gone", ["student", "report.html", "results.json"])
def test_what_a_person_moved_away_is_made_again(
    finished: Finished, copied: Path, hurry: None, gone: str
) -> None:
    path = copied / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = stillhouse("run", finished.recipe, "--folder", copied)
    assert said.code == 0, said.err
    assert path.exists()
    assert "labelling" not in said.err


def test_a_flipped_bit_in_a_trained_student_is_noticed_and_the_same_student_comes_back(
    finished: Finished, copied: Path, hurry: None
) -> None:
    weights = copied / "train" / "model" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said = stillhouse("run", finished.recipe, "--folder", copied)
    assert said.code == 0, said.err
    assert "does not have the content that MANIFEST.json names" in said.err
    assert weights.read_bytes() == content


def test_another_evaluation_set_trains_nothing_anew(finished: Finished, copied: Path, hurry: None) -> None:
    trained = (copied / "train" / "DONE.json").read_bytes()
    said = stillhouse("run", finished.recipe, "--folder", copied, "--set", "evaluate.rows=8")
    assert said.code == 0, said.err
    assert (copied / "train" / "DONE.json").read_bytes() == trained


def test_weights_without_a_head_are_refused_instead_of_teaching_noise(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    transformers.LlamaModel(config).save_pretrained(tmp_path)
    with pytest.raises(TeacherError, match="lm_head"):
        load_model(tmp_path, "AutoModelForCausalLM")


def test_a_new_head_follows_from_its_seed_alone(tmp_path: Path) -> None:
    tiny.save_classifier(tmp_path / "whole")
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    whole.bert.save_pretrained(tmp_path / "base")
    heads = [
        load_model(tmp_path / "base", "AutoModelForSequenceClassification", head_seed=seed).classifier.weight
        for seed in (1, 1, 2)
    ]
    assert (heads[0] == heads[1]).all()
    assert not (heads[0] == heads[2]).all()


def test_checkpoints_that_another_trainer_wrote_are_passed_over_and_left_alone(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_text("theirs")
    said: list[str] = []
    assert newest_sound(tmp_path, said.append) is None
    rotate(tmp_path, 1)
    assert len(list(tmp_path.glob("checkpoint-*/optimizer.pt"))) == 3
    assert len(said) == 3
