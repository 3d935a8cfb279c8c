"""What was said once is kept: found by content, whole or not at all, and bounded."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

import tiny
from stillhouse import store
from stillhouse.data.content import content_of
from stillhouse.data.encode import Example, read_examples
from stillhouse.evaluate import Evaluation, Source
from stillhouse.files import MANIFEST, read_json
from stillhouse.models.load import load_tokenizer
from stillhouse.plans import bench as plans
from stillhouse.progress import Silent
from stillhouse.store import Store, said_of
from stillhouse.tasks import make_task
from test_evaluate import Counted, _index
from typed import Said, hurried, stillhouse, write_recipe


class Notes(Silent):
    """Who remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        """Kept."""
        self.lines.append(text)


# ── a store ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def given(folder: Path, of: Any, content: bytes = b"content", **settings: Any) -> Store:
    """A store into which a file was given."""
    path = folder / f"{uuid4().hex}.safetensors"
    path.write_bytes(content)
    made = Store(folder / "said")
    made.give("rows", of, {"a.safetensors": path}, **settings)
    return made


def test_an_entry_is_found_by_all_that_it_follows_from(tmp_path: Path) -> None:
    given(tmp_path, [1, "x"])
    found = tmp_path / "found.safetensors"
    files = {"a.safetensors": found}
    assert not Store(tmp_path / "said").take("rows", [2, "x"], files)
    assert not Store(tmp_path / "said").take("hidden", [1, "x"], files)
    assert not Store(tmp_path / "said", "another version").take("rows", [1, "x"], files)
    assert not Store().take("rows", [1, "x"], files)
    assert not found.exists()
    assert Store(tmp_path / "said").take("rows", [1, "x"], files)
    assert found.read_bytes() == b"content"


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no manifest"])
def test_a_damaged_entry_is_not_believed_and_is_made_again(damage: str, tmp_path: Path) -> None:
    given(tmp_path, [1])
    (entry,) = (tmp_path / "said").glob("rows-*")
    path = entry / (MANIFEST if damage == "no manifest" else "a.safetensors")
    content = {"cut": b"cont", "changed": b"CONTENT"}.get(damage)
    path.unlink() if content is None else path.write_bytes(content)
    notes, found = Notes(), {"a.safetensors": tmp_path / "found.safetensors"}
    again = Store(tmp_path / "said", None, notes)
    assert not again.take("rows", [1], found)
    assert "it is made again" in notes.lines[0]
    given(tmp_path, [1])
    assert again.take("rows", [1], found)
    assert found["a.safetensors"].read_bytes() == b"content"


def test_a_value_is_made_once_and_a_cut_one_again(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, float]:
        made.append(1)
        return {"seconds": 0.1 + 0.2}

    for _ in range(2):
        assert Store(tmp_path).value("costs", "of", make) == {"seconds": 0.1 + 0.2}
    assert len(made) == 1
    (path,) = tmp_path.glob("costs-*/value.json")
    path.write_text(path.read_text()[:5])
    assert Store(tmp_path).value("costs", "of", make) == {"seconds": 0.1 + 0.2}
    assert len(made) == 2


def test_several_at_once_make_one_whole_entry_and_what_a_killed_one_left_goes(tmp_path: Path) -> None:
    (tmp_path / "said" / ".rows-0.12345678.part").mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        for made in [pool.submit(given, tmp_path, [1], b"same") for _ in range(8)]:
            made.result()
    (entry,) = (path for path in (tmp_path / "said").iterdir() if path.is_dir())
    assert Store(tmp_path / "said").take("rows", [1], {"a.safetensors": tmp_path / "found"})
    assert not list((tmp_path / "said").glob(".*.part"))
    assert (entry / "a.safetensors").read_bytes() == b"same"


def test_what_nobody_used_for_longest_goes_and_nothing_else_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        given(tmp_path, number, b"x" * 1000)
    entries = sorted((tmp_path / "said").glob("rows-*"), key=lambda path: path.stat().st_mtime_ns)
    for age, entry in enumerate(reversed(entries)):
        os.utime(entry, (1e9 - age, 1e9 - age))
    (tmp_path / "said" / "mine").mkdir()
    files = {"a.safetensors": tmp_path / "found"}
    size = sum(path.stat().st_size for path in entries[0].iterdir())
    monkeypatch.setattr(store, "MOST", 3 * size + 20)
    used = Store(tmp_path / "said")
    assert used.take("rows", 0, files), "the oldest, which is young again"
    given(tmp_path, 3, b"x" * 1000)
    there = [Store(tmp_path / "said").take("rows", number, files) for number in range(4)]
    assert there == [True, False, True, True]
    assert (tmp_path / "said" / "mine").is_dir()


def test_a_runs_store_is_its_plans_where_that_has_one(tmp_path: Path) -> None:
    run = tmp_path / "plan" / "runs" / "a"
    run.mkdir(parents=True)
    assert said_of(run) == run / "said"
    (tmp_path / "plan" / "said").mkdir()
    assert said_of(run) == tmp_path / "plan" / "said"


def test_rows_are_known_by_all_that_a_model_may_read_and_not_by_the_line_they_stand_on() -> None:
    example = Example("key", "1", [1, 2], [1, 2], [0], 3)
    row = {"id": "1", "where": "a.jsonl:1", "text": "rare words are one token"}
    known = content_of([example], [row])
    assert content_of([example], [{**row, "where": "b.jsonl:7"}]) == known
    others = [
        content_of([example], [{**row, "text": "another rare word"}]),
        content_of([replace(example, input_ids=[1, 3])], [row]),
        content_of([replace(example, key="other")], [row]),
        content_of([example, example], [row, row]),
    ]
    assert len({known, *others}) == 5


# ── evaluations ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Bench:
    """Evaluations of nine rows and five in batches of four, each in a folder of its own, with one store."""

    def __init__(self, place: Path) -> None:
        self.place, self.count, self.notes = place, 0, Notes()
        layers = {"teacher": 2, "student": 1, "another": 1}
        self.folders = {
            name: tiny.save_language_model(place / name, layers=count, seed=number)
            for number, (name, count) in enumerate(layers.items())
        }
        self.task = make_task("causal_lm", load_tokenizer(self.folders["teacher"]), 24)
        texts = [{"id": str(n), "where": "", "text": text} for n, text in enumerate(tiny.sentences(60))]
        examples = self.task.encode(texts)[0]
        self.sets: dict[str, list[Example]] = {"eval": examples[:9], "other": examples[9:14]}

    def run(self, *names: str, kept: bool = True, size: int = 4) -> tuple[Evaluation, dict[str, int]]:
        """An evaluation of these models, and how many rows each of them read for it."""
        self.count += 1
        counted: Any = Counted(self.task)
        index = {kind: _index(some) for kind, some in self.sets.items()}
        contents = {kind: content_of(some) for kind, some in self.sets.items()}
        where = Store(self.place / "said", None, self.notes) if kept else None
        made = Evaluation(
            counted, self.sets, index, self.place / f"{self.count}", size, self.notes, where, contents
        )
        read = dict.fromkeys(names, 0)
        scores, who = counted.task.scores, {}

        def listening(model: Any, batch: Any) -> Any:
            read[who.get(id(model), "teacher")] += len(batch["keys"])
            return scores(model, batch)

        counted.scores = listening
        for name in names:
            folder = self.folders[name]
            model = counted.load(folder)
            who[id(model)] = name
            made.listen(name, model, Source(f"folder:{folder.name}", folder))
        made.measure()
        made.forget()
        return made, read


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def same(one: Evaluation, other: Evaluation, *names: str) -> None:
    """To the last bit."""
    for name in names:
        for kind, rows in one.rows[name].items():
            assert rows.keys() == other.rows[name][kind].keys()
            for column, values in rows.items():
                np.testing.assert_array_equal(values, other.rows[name][kind][column], err_msg=column)


def test_nobody_reads_twice_and_a_further_model_reads_alone_with_the_numbers_of_an_evaluation_of_all(
    bench: Bench,
) -> None:
    alone, read = bench.run("teacher", "student", "another", kept=False)
    assert read == {"teacher": 14, "student": 14, "another": 14}
    _, read = bench.run("teacher", "student")
    assert read == {"teacher": 14, "student": 14}
    again, read = bench.run("teacher", "student")
    assert read == {"teacher": 0, "student": 0}
    same(again, alone, "teacher", "student")
    more, read = bench.run("teacher", "student", "another")
    assert read == {"teacher": 0, "student": 0, "another": 14}
    same(more, alone, "teacher", "student", "another")
    assert more.rows["another"]["eval"]["kl"].sum() > 0
    assert not list(bench.place.glob("[0-9]/said-*")), "each evaluation's own files are gone"


def test_other_batches_other_rows_and_another_teacher_are_read(bench: Bench) -> None:
    bench.run("teacher", "student")
    assert bench.run("teacher", "student", size=3)[1] == {"teacher": 14, "student": 14}
    bench.folders["teacher"] = tiny.save_language_model(bench.place / "other teacher", layers=2, seed=7)
    assert bench.run("teacher", "student")[1] == {"teacher": 14, "student": 14}
    bench.sets["eval"] = bench.sets["eval"][:8]
    assert bench.run("teacher", "student")[1] == {"teacher": 8, "student": 8}, "the other set is known"


def test_a_student_of_the_teachers_content_is_not_taken_for_the_teacher(bench: Bench) -> None:
    bench.run("teacher")
    bench.folders["student"] = bench.folders["teacher"]
    found, read = bench.run("teacher", "student")
    assert read == {"teacher": 0, "student": 14}
    assert "rank" in found.rows["student"]["eval"]
    assert "rank" not in found.rows["teacher"]["eval"]


@pytest.mark.parametrize(("what", "again"), [("hidden", 9), ("rows", 0)])
def test_a_cut_file_of_the_teachers_is_found_and_read_again(bench: Bench, what: str, again: int) -> None:
    alone, _ = bench.run("teacher", "student", "another", kept=False)
    bench.run("teacher", "student")
    (entry, *_) = (
        path
        for path in (bench.place / "said").glob(f"{what}-*")
        if what == "rows" or len(list(path.iterdir())) == 4  # of `eval`
    )
    path = next(entry.glob("*.safetensors"))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-3])
    found, read = bench.run("teacher", "student", "another")
    same(found, alone, "teacher", "student", "another")
    assert any("it is made again" in line for line in bench.notes.lines)
    assert read["teacher"] == again or what == "rows"
    assert bench.run("teacher", "student", "another")[1] == {"teacher": 0, "student": 0, "another": 0}


def test_hidden_states_that_are_too_many_are_not_kept_and_are_read_again_only_for_somebody_new(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, _ = bench.run("teacher", "student", "another", kept=False)
    monkeypatch.setattr(store, "MOST", 0)
    with monkeypatch.context() as patched:
        patched.setattr(Store, "_make_room", lambda *_: None)  # statistics stay
        bench.run("teacher", "student")
        assert (
            sum("is not kept: for another student it reads again" in line for line in bench.notes.lines) == 2
        )
        assert not list((bench.place / "said").glob("hidden-*"))
        assert bench.run("teacher", "student")[1] == {"teacher": 0, "student": 0}
        found, read = bench.run("teacher", "student", "another")
    assert read == {"teacher": 14, "student": 0, "another": 14}
    same(found, alone, "teacher", "student", "another")


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Heard:
    """What the teacher, which is the model of four layers, has read: the first twelve tokens of each row of each pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from transformers import LlamaForCausalLM

        self.read: list[tuple[int, ...]] = []
        forward = LlamaForCausalLM.forward

        def hearing(model: Any, input_ids: Any = None, **inputs: Any) -> Any:
            if model.config.num_hidden_layers == 4 and input_ids is not None:
                self.read += [tuple(row[:12]) for row in input_ids.tolist()]
            return forward(model, input_ids=input_ids, **inputs)

        monkeypatch.setattr(LlamaForCausalLM, "forward", hearing)

    def held_out(self, run: Path) -> int:
        """How many of these rows are held-out ones of that run; from now on they are counted anew."""
        rows = [
            row for kind in ("eval", "other") for row in read_examples(run / "prepare" / f"{kind}.parquet")
        ]
        held = {tuple(row.input_ids[:12]) for row in rows}
        read, self.read = self.read, []
        return sum(row in held for row in read)


def finished(inputs: Path, folder: Path, *, evaluate: dict[str, Any], **changes: Any) -> Said:
    """The tiny language recipe, run in `folder`."""
    plain: Any = tiny.language_recipe(inputs)
    train = {**plain["train"], "steps": 3}
    values = {
        **plain, "train": train, "evaluate": {**plain["evaluate"], "hard_only": False, **evaluate}, **changes
    }  # fmt: skip
    with hurried():
        said = stillhouse("run", write_recipe(inputs / "recipe.yaml", values), "--folder", folder)
    assert said.code == 0, said.err
    return said


def values_of(run: Path) -> Any:
    """Every model's metrics without their intervals, and what it costs."""
    found = read_json(run / "results.json")
    models = {"teacher": found["teacher"], "student": found["student"], **found["controls"]}
    return {
        name: [
            {
                kind: {metric: one["value"] for metric, one in each.items()}
                for kind, each in model["metrics"].items()
            },
            model["throughput"],
            model["latency"],
        ]
        for name, model in models.items()
    }


def test_another_number_of_resamples_or_samples_and_a_further_baseline_cost_no_pass_of_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, run = Heard(monkeypatch), tmp_path / "run"
    finished(tmp_path, run, evaluate={"resamples": 300}, report={"samples": 3})
    assert heard.held_out(run) > 0, "or this counts nothing"
    before = values_of(run)
    finished(tmp_path, run, evaluate={"resamples": 200}, report={"samples": 2})
    assert heard.held_out(run) == 0
    assert values_of(run) == before, "speeds, too, for they were measured on this machine"
    assert len(read_json(run / "results.json")["samples"]) == 2
    tiny.save_language_model(tmp_path / "small", layers=1, seed=5)
    more = {"resamples": 200, "baselines": [{"name": "small", "model": str(tmp_path / "small")}]}
    finished(tmp_path, run, evaluate=more, report={"samples": 2})
    assert heard.held_out(run) == 0
    assert values_of(run) == before
    small = read_json(run / "results.json")["baselines"]["small"]["metrics"]["eval"]
    assert small["teacher_kl"]["value"] > 0, "it was compared with what the teacher had said"
    fresh = stillhouse("run", tmp_path / "recipe.yaml", "--folder", run, "--fresh", "--until", "prepare")
    assert fresh.code == 0
    assert not (run / "said").exists()


def test_the_runs_of_a_plan_hear_the_teacher_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, folder = Heard(monkeypatch), tmp_path / "plan"
    passes: list[int] = []
    run = plans.Bench.run

    def counting(self: plans.Bench, one: Any) -> Any:
        done = run(self, one)
        passes.append(heard.held_out(self.place(one.name)))
        return done

    monkeypatch.setattr(plans.Bench, "run", counting)
    finished(tmp_path, folder, evaluate={}, report={"samples": 1}, sweep={"train.seed": [0, 1]})
    assert passes[0] > 0
    assert passes[1:] == [0]
    runs = list((folder / "runs").iterdir())
    assert len({(one / "evaluate" / "rows-teacher-eval.safetensors").read_bytes() for one in runs}) == 1
    assert len({(one / "evaluate" / "rows-student-eval.safetensors").read_bytes() for one in runs}) == 2
    assert (folder / "said").is_dir()
    assert not list((folder / "runs").glob("*/said"))
