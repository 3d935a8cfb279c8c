"""Several processes label one run's rows, each its part; the run takes them all."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from conftest import Finished
from test_kill import SMALL_SHARDS
from typed import process, start, stillhouse


def begun(finished: Finished, folder: Path) -> Path:
    """A run whose teacher is there and whose rows nobody has labelled."""
    for done in ("prepare", "plan", "teacher"):
        shutil.copytree(finished.folder / done, folder / done)
    return folder


def rows_of(folder: Path) -> int:
    """Rows in the shards that an index names."""
    indexes = folder.glob("label/targets-*/part-*/index.json")
    return sum(shard["rows"] for path in indexes for shard in json.loads(path.read_text())["shards"])


def test_parts_of_several_processes_one_of_them_killed_are_all_that_the_run_needs(
    finished: Finished, tmp_path: Path
) -> None:
    folder = begun(finished, tmp_path / "run")

    def words(part: str) -> list[object]:
        return ["label", "part", finished.recipe, part, "--folder", folder]

    both = [
        start(*words(f"{number}/2"), script=SMALL_SHARDS, start_new_session=True, stdout=subprocess.PIPE)
        for number in (1, 2)
    ]
    while both[1].poll() is None and not list(folder.glob("label/targets-*/part-2-of-2/*.parquet")):
        time.sleep(0.001)
    if both[1].poll() is None:
        os.killpg(both[1].pid, signal.SIGKILL)
    both[1].communicate()
    said, error = both[0].communicate()
    assert both[0].returncode == 0, error
    assert "part 1 of 2 is done" in said
    again = process(*words("2/2"), script=SMALL_SHARDS)
    assert again.code == 0, again.err
    examples = json.loads((finished.folder / "label" / "DONE.json").read_text())["result"]["examples"]
    assert f"{examples:,} of {examples:,} examples are labelled" in again.out
    assert rows_of(folder) == examples, "no row twice, none lost"
    last = process("run", finished.recipe, "--folder", folder, "--until", "label", script=SMALL_SHARDS)
    assert last.code == 0, last.err
    assert "asked for" not in last.out + last.err
    assert rows_of(folder) == examples
    assert not list(folder.glob("label/targets-*/*.parquet")), "the run labelled nothing itself"


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("5/4", [], "2/4 is the second of four"),
        ("2", [], "2/4 is the second of four"),
        ("0/4", [], "2/4 is the second of four"),
        ("1/2", ["label.online=true"], "keeps no soft targets"),
    ],
)
def test_a_part_that_cannot_be_is_one_sentence(
    finished: Finished, tmp_path: Path, part: str, changes: list[str], said: str
) -> None:
    folder = begun(finished, tmp_path / "run")
    sets = [word for change in changes for word in ("--set", change)]
    found = stillhouse("label", "part", finished.recipe, part, "--folder", folder, *sets)
    assert found.code == 2
    assert said in found.err
    assert "Traceback" not in found.err
