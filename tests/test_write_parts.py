"""Several processes write one run's texts, each its part; the run takes them all."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import RecipeError
from stillhouse.files import read_json, read_jsonl, write_json
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.runner import run_write_part
from stillhouse.teachers import together
from tiny import language_recipe
from typed import start, stillhouse, write_recipe

SMALL_SHARDS = """
from stillhouse.teachers import together, writer
writer.SHARD, together.LOOK = 2, 0.02
from stillhouse.cli import main
main()
"""
"""Few texts, and yet several shards; everything else as it is."""


def writing_recipe(folder: Path) -> dict[str, Any]:
    """Prompts to answer, and questions to make harder and answer: three rounds, each going on from the one before."""
    recipe = language_recipe(folder)
    rows = [{"prompt": f"the {n} river", "completion": " reads a book."} for n in range(14)]
    bare = [{"prompt": f"a {n} house"} for n in range(12)]
    for name, some in (("qa", rows), ("bare", bare)):
        text = "".join(json.dumps(row) + "\n" for row in some)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    # a teacher that has learned nothing rarely says its end token: any of many tokens ends an answer here
    ends = folder / "teacher" / "generation_config.json"
    write_json(ends, {**read_json(ends), "eos_token_id": [1, *range(3, 400, 12)]})
    drawn = {"max_new_tokens": 40, "temperature": 1.5}
    recipe["data"] = {
        "train": {"source": str(folder / "qa.jsonl")}, "unlabelled": {"source": str(folder / "bare.jsonl")},
        "split": 4, "max_length": 64, "writer": {"batch_size": 4},
        "generate": [{"kind": "answers", **drawn}, {"kind": "evol_instruct", **drawn}],
    }  # fmt: skip
    recipe["evaluate"] = {"also": [], "rows": 4, "resamples": 200, "speed": False}
    return recipe


def fresh(folder: Path) -> Path:
    """A run folder in which everybody computes in float32, where batches of any size say the same."""
    folder.mkdir()
    write_json(folder / "machine.json", {"bfloat16": False})
    return folder


def lines_of(folder: Path, pattern: str) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / "written").glob(pattern)) for row in read_jsonl(path)]


def test_parts_of_two_processes_one_of_them_killed_are_what_one_process_writes(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", writing_recipe(tmp_path))
    folder, alone = fresh(tmp_path / "run"), fresh(tmp_path / "alone")

    def begin(part: str) -> "subprocess.Popen[str]":
        words = ["write", "part", recipe, part, "--folder", folder]
        return start(*words, script=SMALL_SHARDS, start_new_session=True)

    first, second = begin("1/2"), begin("2/2")
    while second.poll() is None and not list(folder.glob("written/part-2-of-2/*.jsonl")):
        time.sleep(0.001)
    assert second.poll() is None, second.communicate()[1]
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate()
    again = begin("2/2")
    for number, one in ((1, first), (2, again)):
        said, error = one.communicate(timeout=200)
        assert one.returncode == 0, error
        assert f"part {number} of 2 is done" in said and "round" not in said

    written = lines_of(folder, "part-*/*.jsonl")
    assert len({row["key"] for row in written}) == len(written), "no text twice"
    assert {path.parent.name for path in folder.glob("written/*/*.jsonl")} == {"part-1-of-2", "part-2-of-2"}
    last = stillhouse("run", recipe, "--folder", folder, "--until", "prepare")
    assert last.code == 0 and "asked for" not in last.err, last.err
    assert not lines_of(folder, "*.jsonl"), "the run wrote nothing itself"

    whole = stillhouse("run", recipe, "--folder", alone, "--until", "prepare")
    assert whole.code == 0, whole.err
    theirs = lines_of(alone, "*.jsonl")
    assert {row["key"]: row["text"] for row in written} == {row["key"]: row["text"] for row in theirs}
    for name in ("train.parquet", "dropped.jsonl"):
        assert (folder / "prepare" / name).read_bytes() == (alone / "prepare" / name).read_bytes(), name
    mine, plain = (read_json(one / "prepare" / "DONE.json")["result"] for one in (folder, alone))
    assert mine["counts"] == plain["counts"] and mine["counts"]["written"]["kept"] > 2


def test_a_part_alone_says_what_is_left_and_the_run_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "PATIENCE", 0.1)
    monkeypatch.setattr(together, "LOOK", 0.01)
    recipe = write_recipe(tmp_path / "r.yaml", writing_recipe(tmp_path))
    folder = fresh(tmp_path / "run")
    said = stillhouse("write", "part", recipe, "1/2", "--folder", folder, "--format", "json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["part"] == [1, 2] and found["texts"] == 12 and found["rounds_left"] == 2
    mine = lines_of(folder, "part-1-of-2/*.jsonl")
    assert 0 < len(mine) == found["written"] < 12
    last = stillhouse("run", recipe, "--folder", folder, "--until", "prepare")
    assert last.code == 0 and f"{len(mine)} are there, {12 - len(mine)} are asked for" in last.err
    both = [*mine, *lines_of(folder, "*.jsonl")]
    assert len({row["key"] for row in both}) == len(both), "what the part wrote was not asked for again"
    assert lines_of(folder, "part-1-of-2/*.jsonl") == mine


@pytest.mark.parametrize(
    ("part", "generate", "said"),
    [
        ("5/4", True, "2/4 is the second of four"),
        ("x/y", True, "2/4 is the second of four"),
        ("1/2", False, "nothing is to be written; add data.generate"),
    ],
)
def test_a_part_that_cannot_be_is_one_sentence(tmp_path: Path, part: str, generate: bool, said: str) -> None:
    values = writing_recipe(tmp_path) if generate else language_recipe(tmp_path)
    recipe = write_recipe(tmp_path / "r.yaml", values)
    found = stillhouse("write", "part", recipe, part, "--folder", tmp_path / "run")
    assert found.code == 2
    assert said in found.err and "Traceback" not in found.err


def test_what_has_no_parts_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = writing_recipe(tmp_path)
    several = parse_recipe({**values, "sweep": {"train.learning_rate": [1e-3, 1e-4]}})
    with pytest.raises(RecipeError, match="write part: a plan is several runs"):
        run_write_part(several, tmp_path / "run", (1, 2), Silent())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="write part: .* run it without torchrun"):
        run_write_part(parse_recipe(values), tmp_path / "run", (1, 2), Silent())
    assert not (tmp_path / "run").exists()
