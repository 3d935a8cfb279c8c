"""`torchrun -m stillhouse run`: one process makes the run, the others join it where it trains, and nobody waits for the dead."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import tiny
from stillhouse.errors import RecipeError
from stillhouse.progress import Silent
from stillhouse.ranks import any_of_them, company, rank, size
from stillhouse.recipe import parse_recipe
from stillhouse.runner import refuse_many, run_label_part, run_stages
from stillhouse.train.checkpoints import RANKS, check_ranks


def recipe_in(folder: Path, **changes: object) -> Path:
    settings = tiny.language_recipe(folder)
    train = {**settings["train"], **changes}
    evaluate = {**settings["evaluate"], "speed": False, "also": []}
    path = folder / f"recipe-{train.get('accumulate', 1)}-{train['steps']}.yaml"
    path.write_text(yaml.safe_dump({**settings, "train": train, "evaluate": evaluate}))
    return path


def start(ranks: int, *words: object) -> list[subprocess.Popen[str]]:
    """What torchrun does: the same command in several processes that find each other by the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    common = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    started = []
    for number in range(ranks):
        ours = {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(ranks)}
        ours |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-m", "stillhouse", *map(str, words)]
        started.append(
            subprocess.Popen(
                command,
                env={**common, **(ours if ranks > 1 else {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def ended(started: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """(exit code, what it said, what it complained of) of each."""
    try:
        said = [one.communicate(timeout=300) for one in started]
    finally:
        for one in started:
            one.kill()
    return [(one.returncode, *texts) for one, texts in zip(started, said, strict=True)]


@pytest.mark.slow
def test_two_processes_make_the_student_of_one_that_accumulates_twice_as_much(tmp_path: Path) -> None:
    two, one = (recipe_in(tmp_path, steps=4, log_every=1, accumulate=many) for many in (1, 2))
    (first, second), (alone,) = (
        ended(start(ranks, "run", path, "--folder", tmp_path / f"run-{ranks}"))
        for ranks, path in ((2, two), (1, one))
    )
    assert first[0] == second[0] == alone[0] == 0, (first, second, alone)
    ours = [line for line in second[1].splitlines() if not line.startswith("[Gloo]")]  # torch's own, on both
    assert "report.html" in first[1] and not ours, "one of them speaks"
    for stage in ("train", "control"):
        mine, theirs = (
            load_file(tmp_path / f"run-{ranks}" / stage / "model" / "model.safetensors") for ranks in (2, 1)
        )
        for name, value in mine.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=2e-5)
    logs = [
        [
            json.loads(line)
            for line in (tmp_path / f"run-{ranks}/train/metrics.jsonl").read_text().splitlines()
        ]
        for ranks in (2, 1)
    ]
    assert len(logs[0]) == 4
    for mine, theirs in zip(*logs, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


@pytest.mark.slow
def test_a_stop_of_one_process_saves_all_and_the_same_command_goes_on_to_the_same_bits(
    tmp_path: Path,
) -> None:
    path = recipe_in(tmp_path, steps=300, checkpoint_every=300)
    words = ("run", path, "--folder", tmp_path / "run", "--until", "train")
    started = start(2, *words)
    metrics = tmp_path / "run" / "train" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 2):
        assert all(one.poll() is None for one in started), ended(started)
        time.sleep(0.05)
    started[1].send_signal(signal.SIGTERM)  # the one that writes nothing
    codes = [code for code, *_ in ended(started)]
    assert codes == [143, 143]
    kept = list((tmp_path / "run" / "train" / "checkpoints").glob("checkpoint-*"))
    assert len(kept) == 1 and kept[0].name != "checkpoint-300"
    with pytest.raises(RecipeError, match="written by 2 processes .* now there are 1"):
        check_ranks(kept[0], 1)
    assert json.loads((kept[0] / RANKS).read_text()) == 2
    again = ended(start(2, *words))
    whole = ended(start(2, "run", path, "--folder", tmp_path / "whole", "--until", "train"))
    assert [code for code, *_ in again + whole] == [0] * 4
    mine, theirs = (load_file(tmp_path / run / "train/model/model.safetensors") for run in ("run", "whole"))
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


@pytest.mark.slow
def test_when_rank_0_fails_the_others_hear_of_it_and_do_not_wait(tmp_path: Path) -> None:
    path = recipe_in(tmp_path, steps=2)
    place = tmp_path / "run"
    place.mkdir()
    (place / "prepare").write_text("in the way")  # only rank 0 makes this stage
    first, second = ended(start(2, "run", path, "--folder", place))
    assert first[0] != 0
    assert second[0] == 5 and "rank 0 of this run has stopped; see what it says" in second[2]


def test_a_process_that_is_alone_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")  # left over from somebody's script
    assert rank() == 0 and size() == 1 and company() is None
    assert any_of_them(True) and not any_of_them(False)


def test_a_plan_of_several_runs_is_refused_to_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = parse_recipe(tiny.language_recipe(tmp_path, sweep={"train.learning_rate": [1e-3, 1e-4]}))
    with pytest.raises(RecipeError, match="torchrun: a plan is several runs"):
        refuse_many(recipe)


def test_what_only_one_process_can_do_is_refused_to_several_before_they_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    values = tiny.language_recipe(tmp_path)
    values["train"] |= {"early_stopping": {"every": 2, "patience": 1}}
    with pytest.raises(RecipeError, match=r"train\.early_stopping: one process looks for the best student"):
        run_stages(parse_recipe(values), tmp_path / "run", Silent())
    with pytest.raises(RecipeError, match="label part: .* run it without torchrun"):
        run_label_part(parse_recipe(values), tmp_path / "run", (1, 2), Silent())
