"""Runs beside each other take over what is the same, and nothing else; the teacher is asked once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stillhouse.files import read_json
from stillhouse.pipeline import DONE, Stage, run_pipeline
from stillhouse.progress import Silent
from stillhouse.recipe import Recipe, parse_recipe
from stillhouse.teachers.cache import FORMAT, INDEX, cache_fault, pool_caches


def recipe(**changes: Any) -> Recipe:
    values = {
        "name": "toy", "task": "causal_lm", "teacher": {"model": "/nowhere"}, "student": {"from_teacher": {"layers": 1}},
        "data": {"train": {"source": "/nowhere.jsonl"}}, "train": {"steps": 5},
    }  # fmt: skip
    return parse_recipe({**values, **changes})


class Kitchen:
    """chop (reads the seed) -> cook (reads the steps), and a report that nobody may take."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.stages = [
            Stage("chop", self._work("chop"), reads=("seed",), intact=lambda place, _: None if (place / "a.parquet").exists() else "gone"),
            Stage("cook", self._work("cook"), reads=("train.steps",), after=("chop",)),
            Stage("report", self._work("report"), reads=("name",), after=("cook",), shared=False),
        ]  # fmt: skip

    def _work(self, name: str) -> Any:
        def run(seen: Any, place: Path, results: Any, watch: Any) -> dict[str, Any]:
            self.ran.append(name)
            (place / "a.parquet").write_text(name)
            (place / "notes.json").write_text("{}")
            (place / "checkpoints").mkdir(exist_ok=True)
            return {"made": [name, getattr(seen, "seed", None), str(results)]}

        return run

    def run(self, folder: Path, one: Recipe, *beside: Path) -> list[str]:
        self.ran = []
        run_pipeline(one, self.stages, folder, Silent(), beside=beside)
        return self.ran


def test_a_run_takes_over_what_another_made_from_the_same_inputs_and_makes_the_rest(tmp_path: Path) -> None:
    kitchen, a, b = Kitchen(), tmp_path / "a", tmp_path / "b"
    kitchen.run(a, recipe())
    assert kitchen.run(b, recipe(train={"steps": 6}), a) == ["cook", "report"]
    saved = read_json(b / "chop" / DONE)
    assert saved["taken_from"] == "a"
    assert saved["result"] == read_json(a / "chop" / DONE)["result"]
    assert kitchen.run(b, recipe(train={"steps": 6}), a) == []


def test_other_inputs_are_never_taken_for_these(tmp_path: Path) -> None:
    kitchen = Kitchen()
    kitchen.run(tmp_path / "a", recipe(seed=1))
    assert kitchen.run(tmp_path / "b", recipe(seed=2), tmp_path / "a") == ["chop", "cook", "report"]


def test_what_is_damaged_or_not_done_is_not_taken(tmp_path: Path) -> None:
    kitchen, a = Kitchen(), tmp_path / "a"
    kitchen.run(a, recipe())
    (a / "chop" / "a.parquet").unlink()
    (a / "cook" / DONE).unlink()
    assert kitchen.run(tmp_path / "b", recipe(), a) == ["chop", "cook", "report"]


def test_content_is_linked_and_what_people_edit_is_copied_and_checkpoints_stay(tmp_path: Path) -> None:
    kitchen, a, b = Kitchen(), tmp_path / "a", tmp_path / "b"
    kitchen.run(a, recipe())
    kitchen.run(b, recipe(), a)
    assert os.path.samefile(a / "chop" / "a.parquet", b / "chop" / "a.parquet")
    assert not os.path.samefile(a / "chop" / "notes.json", b / "chop" / "notes.json")
    assert not (b / "chop" / "checkpoints").exists()


def test_what_one_run_changes_later_does_not_reach_another(tmp_path: Path) -> None:
    kitchen, a, b = Kitchen(), tmp_path / "a", tmp_path / "b"
    kitchen.run(a, recipe())
    kitchen.run(b, recipe(), a)
    kitchen.run(a, recipe(seed=3))
    assert kitchen.run(b, recipe()) == []


def test_a_stage_that_was_cut_off_is_replaced_by_a_finished_one(tmp_path: Path) -> None:
    kitchen, a, b = Kitchen(), tmp_path / "a", tmp_path / "b"
    kitchen.run(a, recipe())
    kitchen.run(b, recipe())
    (b / "cook" / DONE).unlink()
    (b / "cook" / "half").write_text("x")
    assert kitchen.run(b, recipe(), a) == []
    assert not (b / "cook" / "half").exists()
    assert not list(b.glob(".*.part"))


# ── caches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _cache(folder: Path, shards: dict[str, str], meta: str = "m") -> Path:
    """A cache folder as `SoftTargetCache` leaves it, as far as pooling looks at it: file -> content."""
    from stillhouse.files import hash_file, write_json

    folder.mkdir(parents=True)
    rows = []
    for name, content in shards.items():
        (folder / name).write_text(content)
        size = (folder / name).stat().st_size
        rows.append(
            {"file": name, "rows": 1, "rows_in_group": 1, "bytes": size, "sha256": hash_file(folder / name)}
        )
    write_json(folder / INDEX, {"format": FORMAT, "meta": meta, "shards": rows})
    return folder


def _contents(folder: Path) -> set[str]:
    return {
        (folder / shard["file"]).read_text() for shard in json.loads((folder / INDEX).read_text())["shards"]
    }


def test_pooled_caches_hold_what_either_held_and_stay_sound(tmp_path: Path) -> None:
    theirs = _cache(tmp_path / "a" / "targets-1", {"00000.parquet": "one", "00001.parquet": "two"})
    mine = _cache(tmp_path / "b" / "targets-1", {"00000.parquet": "three"})
    for _ in range(2):  # the second time changes nothing
        pool_caches(tmp_path / "a", tmp_path / "b")
        assert _contents(mine) == {"one", "two", "three"}
        assert cache_fault(mine) is None
    assert _contents(theirs) == {"one", "two"}


def test_a_cache_that_is_not_there_yet_is_begun(tmp_path: Path) -> None:
    _cache(tmp_path / "a" / "targets-1", {"00000.parquet": "one"})
    (tmp_path / "b").mkdir()
    pool_caches(tmp_path / "a", tmp_path / "b")
    assert _contents(tmp_path / "b" / "targets-1") == {"one"}


def test_what_several_processes_labelled_in_parts_is_taken_once(tmp_path: Path) -> None:
    _cache(tmp_path / "a" / "targets-1", {"00000.parquet": "one"})
    _cache(tmp_path / "a" / "targets-1" / "part-1-of-2", {"00000.parquet": "two"})
    mine = _cache(tmp_path / "b" / "targets-1" / "part-0-of-2", {"00000.parquet": "two"}).parent
    pool_caches(tmp_path / "a", tmp_path / "b")
    assert _contents(mine) == {"one"}, "its own part holds the other"
    assert cache_fault(mine) is None


def test_damaged_shards_and_other_targets_are_not_taken(tmp_path: Path) -> None:
    theirs = _cache(tmp_path / "a" / "targets-1", {"00000.parquet": "one", "00001.parquet": "two"})
    (theirs / "00001.parquet").write_text("tw0")
    mine = _cache(tmp_path / "b" / "targets-1", {})
    other = _cache(tmp_path / "c" / "targets-1", {}, meta="another teacher")
    for folder in ("b", "c"):
        pool_caches(tmp_path / "a", tmp_path / folder)
    assert _contents(mine) == {"one"}
    assert _contents(other) == set()


def test_a_pool_that_was_cut_off_before_its_index_leaves_the_cache_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse.teachers import cache

    _cache(tmp_path / "a" / "targets-1", {"00000.parquet": "one"})
    mine = _cache(tmp_path / "b" / "targets-1", {"00000.parquet": "three"})

    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cache, "write_json", cut_off)
        with pytest.raises(KeyboardInterrupt):
            pool_caches(tmp_path / "a", tmp_path / "b")
    assert _contents(mine) == {"three"}
    pool_caches(tmp_path / "a", tmp_path / "b")
    assert _contents(mine) == {"one", "three"}
    assert cache_fault(mine) is None
