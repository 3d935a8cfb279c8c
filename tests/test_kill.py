"""kill -9 at any moment, the same command again, and the student is the same to the last bit."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from conftest import Finished
from typed import process, start, stillhouse, write_recipe

SMALL_SHARDS = """
from stillhouse.steps import paces
from stillhouse import cost, latency
from stillhouse.teachers import cache, labelling
paces.SECONDS, latency.MOST, latency.NEW_TOKENS, cost.fresh_peak = 0.01, 1, 3, lambda *_: 1
labelling.SHARD_VALUES = 300 * 16
from stillhouse.cli import main
main()
"""
"""Little data, and yet several shards; everything else as it is."""
SAME = ("train/model/model.safetensors", "control/model/model.safetensors", "student/model.safetensors")


def moments(folder: Path) -> dict[str, Callable[[], bool]]:
    """Name -> whether it has come."""

    def there(pattern: str) -> Callable[[], bool]:
        return lambda: next(folder.glob(pattern), None) is not None

    return {
        "prepare": there("prepare/BEGUN.json"),
        "initial": there("initial/BEGUN.json"),
        "initial is saved": there("initial/.model.*.part"),
        "label": there("label/BEGUN.json"),
        "a shard is written": there("label/targets-*/.*.part"),
        "a shard is there": there("label/targets-*/*.parquet"),
        "train": there("train/BEGUN.json"),
        "a checkpoint is written": there("train/checkpoints/.checkpoint-*.part"),
        "a checkpoint is there": there("train/checkpoints/checkpoint-*"),
        "a later checkpoint is written": lambda: (
            there("train/checkpoints/checkpoint-*")() and there("train/checkpoints/.checkpoint-*.part")()
        ),
        "the student is saved": there("train/.model.*.part"),
        "control": there("control/BEGUN.json"),
        "a checkpoint of the control is written": there("control/checkpoints/.checkpoint-*.part"),
        "evaluate": there("evaluate/BEGUN.json"),
        "report": there("report/BEGUN.json"),
        "the student is handed over": there(".student.*.part"),
    }


def killed(running: "subprocess.Popen[str]", come: Callable[[], bool], delay: float) -> bool:
    """Kill -9 `delay` seconds after the moment.  Returns: False if the run was over before."""
    while not come():
        if running.poll() is not None:
            return False
        time.sleep(0.0005)
    until = time.perf_counter() + delay
    while time.perf_counter() < until:
        time.sleep(0.0005)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    return running.returncode == -signal.SIGKILL


def one_kill(words: list[object], folder: Path, moment: str, delay: float, script: str | None = None) -> bool:
    """One killed process.  Returns: whether the kill came in time; what it said must hold no traceback."""
    running = start(*words, script=script, start_new_session=True, stdout=subprocess.DEVNULL)
    hit = killed(running, moments(folder)[moment], delay)
    assert running.stderr is not None
    error = running.stderr.read()
    assert "Traceback" not in error, f"{moment} + {delay:.3f} s: {error}"
    return hit


def test_a_run_killed_while_labelling_training_and_saving_gives_the_same_student(
    finished: Finished, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for done in ("prepare", "plan", "teacher", "initial"):
        shutil.copytree(finished.folder / done, folder / done)
    words: list[object] = ["run", finished.recipe, "--folder", folder]
    draw = random.Random(1)
    plan = [
        ("a shard is written", 0.02),
        ("a later checkpoint is written", 0.01),
        ("a checkpoint of the control is written", 0.01),
    ]
    hits = [one_kill(words, folder, moment, draw.uniform(0, most), SMALL_SHARDS) for moment, most in plan]
    assert any(hits)
    last = process(*words, script=SMALL_SHARDS)
    assert last.code == 0, last.err
    for name in SAME:
        assert (folder / name).read_bytes() == (finished.folder / name).read_bytes(), name
    assert not list(folder.rglob("*.part")), "what was half-written is swept away"


@pytest.mark.slow
def test_thirty_runs_killed_at_random_moments_all_give_the_same_student(tmp_path: Path) -> None:
    """Each of 30 kills (-9) hits a real `python -m stillhouse run`; a folder is finished and compared after every sixth."""
    values = tiny.language_recipe(tmp_path)
    values["evaluate"] = {"also": [], "rows": 12, "resamples": 200, "speed": False}
    tiny.text_file(tmp_path / "text.jsonl", rows=700)
    train = {
        "steps": 40,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "checkpoint_every": 3,
        "precision": "float32",
    }
    recipe = write_recipe(tmp_path / "tiny.yaml", {**values, "train": train, "report": {"samples": 0}})
    whole = tmp_path / "whole"
    said = process("run", recipe, "--folder", whole)
    assert said.code == 0, said.err
    draw = random.Random(2026)
    weights = {
        "a checkpoint is written": 4,
        "a later checkpoint is written": 4,
        "a shard is written": 4,
        "train": 3,
        "label": 3,
    }
    names = list(moments(whole))
    kills, attempt, report = 0, 0, []
    while kills < 30:
        folder = tmp_path / f"run-{attempt}"
        attempt += 1
        for moment in sorted(
            draw.choices(names, [weights.get(name, 1) for name in names], k=6), key=names.index
        ):
            delay = draw.choice([draw.uniform(0, 0.01), draw.uniform(0, 0.3)])
            hit = one_kill(["run", recipe, "--folder", folder], folder, moment, delay)
            kills += hit
            report.append(
                f"run {attempt}, {moment} + {delay * 1000:.0f} ms: {'killed' if hit else 'was over'}"
            )
        said = process("run", recipe, "--folder", folder)
        assert said.code == 0, f"{report[-6:]}: {said.err}"
        assert "Traceback" not in said.err, f"{report[-6:]}: {said.err}"
        for name in SAME:
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), f"{name} after {report[-6:]}"
        assert not list(folder.rglob("*.part")), report[-6:]
        shutil.rmtree(folder)
        print("\n".join(report[-6:]), flush=True)
    print(f"{kills} kills in {attempt} runs, all with the same student")


def test_a_kill_leaves_no_lock(finished: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    running = start(
        "run", finished.recipe, "--folder", folder, start_new_session=True, stdout=subprocess.DEVNULL
    )
    assert killed(running, lambda: (folder / "recipe.json").exists(), 0.0)
    assert stillhouse("run", finished.recipe, "--folder", folder, "--until", "prepare").code == 0
