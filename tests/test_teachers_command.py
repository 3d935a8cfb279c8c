"""Ranking candidate teachers."""

import json
import re
import shutil
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

import tiny
import tongues
from endpoint import Endpoint
from stillhouse.asking import LEDGER, Ledger
from stillhouse.cli.teachers import show
from stillhouse.errors import RecipeError, ResourceError
from stillhouse.files import read_json, write_json
from stillhouse.kept import RowIndex, rows_path, write_rows
from stillhouse.measure import CLASSIFICATION_METRICS, LM_METRICS
from stillhouse.models.load import load_tokenizer
from stillhouse.pipeline import run_pipeline
from stillhouse.plans import select
from stillhouse.plans.candidates import compatibility, labelling, with_teacher
from stillhouse.plans.select import probe, rank_teachers, ranked
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.stages import STAGES
from test_blackbox import classifying, opinion
from typed import stillhouse, write_recipe

LM = SimpleNamespace(headline="bits_per_byte", metrics=LM_METRICS)


def keep(place, columns, clusters=None):
    """What an evaluation leaves of its student, in a run folder; each row is a document of its own if nothing is said."""
    names = [str(number) for number in range(len(next(iter(columns.values()))))]
    (place / "evaluate").mkdir(parents=True)
    index = RowIndex(names, names, clusters or names, [9] * len(names), [None] * len(names))
    index.write(place / "evaluate", "eval")
    write_rows(rows_path(place / "evaluate", "student", "eval"), columns)


def tried(tmp_path, name, nats, fits=True, clusters=None):
    """A candidate whose student has these nats in each row of 100 bytes."""
    if fits:
        columns = {"nll": np.asarray(nats, dtype=np.float64), "bytes": np.full(len(nats), 100.0)}
        keep(tmp_path / name, columns, clusters)
    return {"candidate": name, "fits": fits, "student": {"value": float(np.mean(nats))}, "why": None}


def test_the_order_is_that_of_the_students_and_misfits_come_last(tmp_path):
    noise = np.random.default_rng(0).normal(0.0, 1.0, 60)
    rows = [
        tried(tmp_path, "no", [0.0], fits=False),
        tried(tmp_path, "worse", 90.0 + noise),
        tried(tmp_path, "best", 70.0 + noise),
        tried(tmp_path, "middle", 80.0 + noise),
    ]
    found = ranked(rows, LM, {row["candidate"]: tmp_path / row["candidate"] for row in rows}, 0)
    assert [row["candidate"] for row in found["candidates"]] == ["best", "middle", "worse", "no"]
    assert found["recommended"] == "best" and "do not tell" not in found["because"]
    assert found["candidates"][1]["behind"]["low"] > 0  # more bits are worse


def test_where_higher_is_better_the_order_turns_round(tmp_path):
    task = SimpleNamespace(headline="accuracy", metrics=CLASSIFICATION_METRICS)
    rows = []
    for name, right in (("low", 0.4), ("high", 0.8)):
        needed = task.metrics["accuracy"].columns
        columns = {column: np.full(50, right if "correct" in column else 1.0) for column in needed}
        keep(tmp_path / name, columns)
        rows.append({"candidate": name, "fits": True, "student": {"value": right}})
    found = ranked(rows, task, {name: tmp_path / name for name in ("low", "high")}, 0)
    assert found["recommended"] == "high"


def test_a_difference_within_the_noise_is_said(tmp_path):
    draw = np.random.default_rng(1)
    rows = [tried(tmp_path, name, draw.normal(80.0, 20.0, 30)) for name in ("a", "b")]
    found = ranked(rows, LM, {row["candidate"]: tmp_path / row["candidate"] for row in rows}, 0)
    assert "do not tell it from" in found["because"]


@pytest.mark.parametrize(("answered", "recommended"), [("eval", None), ("eval_by_teacher", "b")])
def test_students_of_different_teachers_answers_are_not_compared_and_none_is_recommended(
    tmp_path, answered, recommended
):
    """Each candidate behind an API answered the held-out rows, which have no answers of their own: two sets of texts.  Where they
    have some, what is read may differ in its tokens alone."""
    rows = [tried(tmp_path, name, nats) for name, nats in (("a", [80.0] * 30), ("b", [70.0] * 31))]
    for name in "ab":
        write_json(tmp_path / name / "label" / "DONE.json", {"result": {"sets": {answered: {}}}})
    found = ranked(rows, LM, {name: tmp_path / name for name in "ab"}, 0)
    assert found["recommended"] == recommended
    assert [row.get("behind") for row in found["candidates"]] == [None, None]
    assert ("its own teacher's answers (b, a)" in found["because"]) == (recommended is None)


def test_rows_of_one_document_are_not_taken_for_independent_ones(tmp_path):
    """30 documents of 20 rows, alike within each: by rows the candidates differ surely, by documents they do not."""
    draw = np.random.default_rng(3)
    of_document = np.repeat(draw.normal(1.0, 4.0, 30), 20)
    clusters = [str(number // 20) for number in range(600)]
    apart = {}
    for how, named in (("rows", None), ("documents", clusters)):
        place = tmp_path / how
        rows = [tried(place, "a", np.full(600, 80.0), clusters=named)]
        rows.append(tried(place, "b", 80.0 + of_document, clusters=named))
        found = ranked(rows, LM, {row["candidate"]: place / row["candidate"] for row in rows}, 0)
        behind = found["candidates"][1]["behind"]
        apart[how] = behind["high"] - behind["low"]
    assert apart["documents"] > 3.0 * apart["rows"]
    assert "do not tell it from" in found["because"]


def test_a_probe_is_a_small_share_of_the_steps_and_reads_no_more_rows_than_these(tmp_path):
    recipe = tiny.language_recipe(tmp_path)
    recipe["train"] = {**recipe["train"], "steps": 3000}
    recipe["data"] = {**recipe["data"], "extra": {"source": "more.jsonl"}}
    small = probe(parse_recipe(recipe), "other/model@sha256:" + "a" * 64)
    assert small.teacher.model == "other/model"
    assert small.teacher.sha256 == "a" * 64
    assert small.train.steps == 60 <= 0.05 * 3000
    assert small.data.train.limit == 60 * 4 == small.data.extra.limit, "each is labelled before it is learned"
    assert [term.kind for term in small.objective] == ["forward_kl", "hard"]
    assert small.evaluate.also == []


def test_a_probe_measures_nothing_that_the_ranking_does_not_read(tmp_path):
    """Otherwise each candidate pays for answers, a harness, changed rows and further seeds, and for a writer of none."""
    recipe = tiny.language_recipe(tmp_path)
    recipe["data"] = {**recipe["data"], "writer": {"model": "some/writer"}}
    recipe["evaluate"] = {
        "answers": {"rows": 4}, "harness": {"tasks": ["arc_easy"]}, "perturb": ["typos", "paraphrase"], "swap": [["he", "she"]],
        "seeds": 3, "resamples": 300, "hard_only": True,
    }  # fmt: skip
    small = probe(parse_recipe(recipe), "other/model")
    asked = small.evaluate.model_dump(exclude_defaults=True)
    assert asked == {"rows": asked["rows"], "also": [], "resamples": 300}, "speed and the control are read"
    assert small.evaluate.speed and small.evaluate.hard_only
    assert small.data.writer is None


@pytest.mark.parametrize("candidates", [[], ["a", "a"]])
def test_no_candidates_or_one_twice_is_refused(tmp_path, candidates):
    with pytest.raises(RecipeError, match="each once"):
        rank_teachers(parse_recipe(tiny.language_recipe(tmp_path)), candidates, tmp_path / "run", Silent())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such candidate"),
        ("label: {top_k: 4}", "has no teacher: section"),
        ("teacher: {model: x}\nstudent: {model: y}", "a candidate has no student:"),
        ("teacher: {modell: x}", "modell"),
    ],
)
def test_a_candidates_file_that_is_none_is_refused_by_name(tmp_path, text, said):
    if text is not None:
        (tmp_path / "one.yaml").write_text(text)
    with pytest.raises(RecipeError, match=said):
        probe(parse_recipe(tiny.language_recipe(tmp_path)), str(tmp_path / "one.yaml"))


def test_a_candidates_file_brings_what_the_student_can_compare_with_it(tmp_path):
    text = "teacher: {api: {base_url: 'http://localhost:1/v1', model: big}}\nobjective: [{kind: hard}]"
    (tmp_path / "far.yaml").write_text(text)
    recipe = {**tiny.language_recipe(tmp_path), "student": {"model": str(tmp_path / "teacher")}}
    small = probe(parse_recipe(recipe), str(tmp_path / "far.yaml"))
    assert small.teacher.name == "big" and not small.teacher.is_local
    assert [term.kind for term in small.objective] == ["hard"]
    assert small.train.steps == 10 and small.label.top_k == 16, "the rest is the recipe's"


def prepared(tmp_path, recipe, until="prepare"):
    """(the recipe, the folder of its run as far as that)."""
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "machine.json", {"bfloat16": False})
    made = parse_recipe(recipe)
    run_pipeline(made, STAGES, tmp_path / "run", Silent(), until)
    return made, tmp_path / "run"


def test_a_teacher_that_reads_and_ends_otherwise_is_told_from_the_student(tmp_path):
    recipe = tiny.language_recipe(tmp_path)
    tongues.save_other_student(tmp_path / "other")
    recipe |= {
        "student": {"model": str(tmp_path / "other")},
        "label": {"online": True},
        "objective": [{"kind": "cross_tokenizer", "method": "uld"}, {"kind": "hard"}],
    }
    found = compatibility(*prepared(tmp_path, recipe))
    assert (found["tokenizer"], found["alignment"]) == ("other", "uld")
    assert (found["template"], found["end_tokens"]) == ("other", "other")
    assert any("an answer ends with" in note and "</turn> at the student" in note for note in found["notes"])


def test_a_student_of_its_teacher_reads_and_ends_as_it_does(tmp_path):
    found = compatibility(*prepared(tmp_path, tiny.language_recipe(tmp_path)))
    same = {"tokenizer": "same", "template": "same", "end_tokens": "same", "alignment": None, "notes": []}
    assert found == same


def test_masked_language_models_are_compared_by_their_tokens_alone(tmp_path):
    found = compatibility(*prepared(tmp_path, tiny.masked_recipe(tmp_path)))
    same = {"tokenizer": "same", "template": None, "end_tokens": None, "alignment": None, "notes": []}
    assert found == same


def test_a_template_alone_that_differs_is_seen(tmp_path):
    recipe = tiny.language_recipe(tmp_path)
    tiny.save_language_model(tmp_path / "mine", layers=2)
    tokenizer = load_tokenizer(tmp_path / "mine")
    tokenizer.chat_template = tokenizer.chat_template.replace("<|", "# <|", 1)
    tokenizer.save_pretrained(tmp_path / "mine")
    found = compatibility(*prepared(tmp_path, {**recipe, "student": {"model": str(tmp_path / "mine")}}))
    assert (found["tokenizer"], found["template"]) == ("same", "other")


def test_labelling_everything_is_foretold_from_a_part_of_the_rows(tmp_path, hurry):
    recipe = tiny.language_recipe(tmp_path)
    recipe["report"] = {"prices": {"machine_per_hour": 7.2}}
    part = {**recipe, "data": {**recipe["data"], "train": {**recipe["data"]["train"], "limit": 25}}}
    _, place = prepared(tmp_path, part, until="plan")
    found = labelling(parse_recipe(recipe), place)
    pace = 1.0 / read_json(place / "plan" / "plan.json")["seconds_a_token"]["teacher_label"]
    texts = [json.loads(line)["text"] for line in (tmp_path / "text.jsonl").read_text().splitlines()]
    tokenizer = load_tokenizer(tmp_path / "teacher")
    everything = sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts) * 100 / 120  # 20 are held out
    assert found["per_second"] == pytest.approx(pace) and found["rows"] == 100
    assert found["seconds"] == pytest.approx(everything / pace, rel=0.1)
    assert found["cost"] == pytest.approx(found["seconds"] * 7.2 / 3600)


MINE = 0.004
"""Dollars of a mean answer in a small run."""


def paneled(tmp_path, *members):
    """What labelling takes with this panel as the teacher of a classifier: its run is planned, and nobody is asked."""
    recipe = classifying(tmp_path, "http://localhost:1/v1")
    recipe["teacher"] = {"panel": list(members), "dtype": "float32"}
    recipe["student"] = {"model": str(tmp_path / "base")}
    recipe["report"] = {"prices": {"machine_per_hour": 3600.0}}
    made, place = prepared(tmp_path, recipe, until="plan")
    with mock.patch.object(Ledger, "typical", return_value=(1.0, MINE, 30)):
        return labelling(made, place)


def asked(model, **price):
    api = {"base_url": "http://localhost:1/v1", "model": model, "max_tokens": 4}
    return {"api": {**api, **({"price": price} if price else {})}}


def test_a_panels_members_behind_an_api_are_paid_in_dollars_beside_the_machine(tmp_path, hurry):
    """The answers of one token, at a dollar each, are four at most for each row and member."""
    one, two = (asked(name, input=0.0, output=1e6) for name in ("one", "two"))
    found = paneled(tmp_path, {"model": str(tmp_path / "base")}, one, two)
    rows = found["rows"]
    assert rows > 0 and found["currency"] == "that of report.prices"
    assert found["asking"]["at_most"] == pytest.approx(2 * rows * 4.0)
    assert found["asking"]["cost"] == pytest.approx(2 * rows * MINE)
    assert found["seconds"] == pytest.approx(found["cost"] + found["asking"]["seconds"]), "a dollar a second"
    assert found["at_most"] == found["cost"] > 0.0


def test_a_panel_whose_member_has_no_price_has_none_in_dollars(tmp_path, hurry):
    found = paneled(
        tmp_path, {"model": str(tmp_path / "base")}, asked("one", input=1.0, output=1.0), asked("two")
    )
    assert (found["asking"]["cost"], found["asking"]["at_most"]) == (None, None)
    assert found["cost"] > 0.0


def test_a_panel_of_apis_alone_takes_no_machine(tmp_path, hurry):
    found = paneled(tmp_path, *(asked(name, input=0.0, output=1e6) for name in ("one", "two")))
    assert (found["unit"], found["per_second"], found["currency"]) == ("answers", None, "dollars")
    assert found["cost"] == pytest.approx(2 * found["rows"] * MINE)
    assert found["at_most"] == pytest.approx(2 * found["rows"] * 4.0)
    assert found["seconds"] > 0.0 and "asking" not in found


def test_a_run_that_cannot_be_read_loses_no_other_candidate(tmp_path):
    good = tried(tmp_path / "run", "good", [1.0, 2.0])
    with (
        mock.patch.object(select, "run_pipeline"),
        mock.patch.object(select, "check_teachers"),
        mock.patch.object(select, "_read", side_effect=[ZeroDivisionError("float division by zero"), good]),
    ):
        found = rank_teachers(
            parse_recipe(tiny.language_recipe(tmp_path)), ["bad", "good"], tmp_path / "run", Silent()
        )
    assert found["recommended"] == "good"
    assert [row["candidate"] for row in found["candidates"]] == ["good", "bad"]
    assert "cannot be read (ZeroDivisionError: float division by zero)" in found["candidates"][1]["why"]
    assert read_json(tmp_path / "run" / "teachers.json")["recommended"] == "good"


class Notes(Silent):
    """Who keeps what is said, in order."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


def test_all_candidates_that_are_not_there_are_named_before_the_first_is_tried_out(tmp_path):
    recipe = tiny.language_recipe(tmp_path)
    tiny.save_language_model(tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    missing, bare, file = (str(tmp_path / name) for name in ("missing", "bare", "far.yaml"))
    good, watch = str(tmp_path / "teacher"), Notes()
    named = [good, missing, bare, file]
    place = select._folders(named, tmp_path / "run")[good]
    read = {**tried(place.parent, place.name, [1.0, 2.0]), "candidate": good}
    with (
        mock.patch.object(select, "run_pipeline", side_effect=lambda *_: watch.note("a run")),
        mock.patch.object(select, "_read", return_value=read),
    ):
        found = rank_teachers(parse_recipe(recipe), named, tmp_path / "run", watch)
    (line,) = (said for said in watch.said if said.startswith("cannot be tried out"))
    assert watch.said.index(line) < watch.said.index("a run")
    assert watch.said.count("a run") == 1, "the good one alone is tried out"
    for name in (missing, bare, file):
        assert name in line
    assert "no such file" in line and "*.safetensors" in line and "no such candidate" in line
    assert [row["fits"] for row in found["candidates"]] == [True, False, False, False]


@pytest.mark.parametrize(
    "error", [ResourceError("teacher.api.max_cost: is spent"), RecipeError("teacher.model: is not there")]
)
def test_a_candidate_that_fails_midway_loses_no_other_not_even_where_its_files_are_damaged(tmp_path, error):
    good = tried(tmp_path / "run", "good", [1.0, 2.0])
    recipe = parse_recipe(tiny.language_recipe(tmp_path))
    with (
        mock.patch.object(select, "check_teachers"),
        mock.patch.object(select, "run_pipeline", side_effect=[error, None]),
        mock.patch.object(select, "_read", return_value=good),
        mock.patch.object(select, "compatibility", side_effect=KeyError("tokenizer")),
    ):
        found = rank_teachers(recipe, ["bad", "good"], tmp_path / "run", Silent())
    assert found["recommended"] == "good"
    assert found["candidates"][1] == {"candidate": "bad", "fits": False, "why": str(error)}
    assert read_json(tmp_path / "run" / "teachers.json")["recommended"] == "good"


@pytest.mark.parametrize("gone", ["index-eval.json", "rows-student-eval.safetensors"])
def test_a_candidate_whose_statistics_are_gone_is_named_and_the_others_are_ranked(tmp_path, gone):
    """The ranking itself read them, and ended with the first that it could not."""
    measured = {"metrics": {"eval": {"bits_per_byte": {"value": 1.0}}}}
    for name in ("bad", "good"):
        place = tmp_path / "run" / name
        tried(tmp_path / "run", name, [1.0, 2.0])
        write_json(place / "prepare" / "DONE.json", {"result": {}})
        results = {
            "metric": "bits_per_byte",
            "teacher": measured,
            "student": measured,
            "gain_over_hard_only": None,
        }
        write_json(place / "results.json", results)
    (tmp_path / "run" / "bad" / "evaluate" / gone).unlink()
    seconds = {stage: {"seconds": 1.0} for stage in ("teacher", "label", "train", "control")}
    with (
        mock.patch.object(select, "check_teachers"),
        mock.patch.object(select, "run_pipeline"),
        mock.patch.multiple(
            select, compatibility=mock.DEFAULT, terms_of=lambda *_: {}, labelling=mock.DEFAULT,
            stage_rows=lambda *_: seconds, write_json=lambda *_: None,
        ),
    ):  # fmt: skip
        recipe = parse_recipe(tiny.language_recipe(tmp_path))
        found = rank_teachers(recipe, ["bad", "good"], tmp_path / "run", Silent())
    assert found["recommended"] == "good"
    assert "cannot be read" in found["candidates"][1]["why"]


def test_a_candidate_named_by_its_source_gets_the_context_that_any_model_is_told(tmp_path):
    recipe = tiny.language_recipe(tmp_path)
    recipe["teacher"] = {**recipe["teacher"], "context": "Be brief."}
    assert probe(parse_recipe(recipe), "other/model").teacher.context == "Be brief."


def test_a_student_that_teaches_itself_has_no_candidates(tmp_path):
    recipe = tiny.language_recipe(tmp_path)
    recipe["teacher"] = {**recipe["teacher"], "ema": 0.99}
    recipe["label"] = {"online": True}
    with pytest.raises(RecipeError, match="teacher.ema: the student's own average teaches it"):
        with_teacher(parse_recipe(recipe), "other/model")


def test_a_local_model_and_one_behind_an_api_are_ranked_together(tmp_path, hurry):
    recipe = classifying(tmp_path, "http://localhost:1/v1")
    recipe["student"] = {"model": str(tmp_path / "base")}
    shutil.copytree(tmp_path / "base", tmp_path / "near")  # a tokenizer that is trained anew may differ
    tiny.labelled_file(tmp_path / "rows.csv", rows=300)
    recipe["data"]["train"]["source"] = str(tmp_path / "rows.csv")
    recipe["train"] |= {"steps": 10, "batch_size": 4}
    recipe["teacher"] = {"model": str(tmp_path / "near"), "dtype": "float32"}
    with Endpoint(opinion) as endpoint:
        api = {"base_url": endpoint.url, "model": "big", "price": {"input": 1.0, "output": 10.0}}
        (tmp_path / "far.yaml").write_text(json.dumps({"teacher": {"api": api}}))
        candidates = [str(tmp_path / "near"), str(tmp_path / "far.yaml")]
        found = rank_teachers(parse_recipe(recipe), candidates, tmp_path / "run", Silent())
        asked = len(endpoint.seen.delivered)
    rows = {row["candidate"].rpartition("/")[2]: row for row in found["candidates"]}
    assert [row["why"] for row in rows.values()] == [None, None]
    far, near = rows["far.yaml"]["labelling"], rows["near"]["labelling"]
    assert rows["far.yaml"]["quality"]["value"] == 1.0 and rows["far.yaml"]["terms"] == "unknown"
    assert (far["unit"], near["unit"]) == ("answers", "rows")
    assert far["rows"] == near["rows"] == 270, "all of them, and not the 40 that the small run read"
    assert asked == 70
    assert 0 < far["cost"] <= far["at_most"] and far["currency"] == "dollars"
    (kept,) = (tmp_path / "run").glob(f"*far.yaml/{LEDGER}")
    with Ledger(kept) as ledger:
        paid = sum(one["cost"] for one in ledger.summary())
    assert far["cost"] == pytest.approx(paid / asked * 270)
    assert far["seconds"] == pytest.approx(270 / far["per_second"])
    assert near["cost"] is None, "no price of machine time is given"
    assert rows["near"]["compatibility"]["tokenizer"] == "same"


def test_the_tables_fit_a_terminal_of_100_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("FORCE_COLOR", "1")
    wide = {"value": -0.01234, "low": -0.01391, "high": -0.01072}
    row = {
        "candidate": "organisation/A-Model-With-A-Long-Name-360M-Instruct", "fits": True, "why": None,
        "student": {"value": 0.83214, "low": 0.83012, "high": 0.83411}, "behind": wide, "gain": wide, "quality": wide,
        "parameters": 361821120, "licence": "llama3.1-community", "terms": "disallowed", "seconds": 4000.0,
        "labelling": {
            "unit": "answers", "per_second": 12345.6, "rows": 10, "seconds": 45000.0, "cost": 12345.6,
            "at_most": 123456.7, "currency": "dollars",
        },
        "compatibility": {
            "tokenizer": "other", "alignment": "names of labels", "template": "other", "end_tokens": "other", "notes": [],
        },
    }  # fmt: skip
    other = {**row, "candidate": "organisation/A-Model-With-A-Long-Name-135M"}
    misfit = {"candidate": "gone", "fits": False, "why": "there is none"}
    found = {
        "metric": "bits_per_byte", "candidates": [row, other, misfit], "recommended": None, "because": "x", "steps": 10,
        "of_steps": None,
    }  # fmt: skip
    show(found, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert (
        max(len(re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()) for line in lines if "tried out " not in line)
        <= 100
    )
    assert sum(line.startswith("A-Model") for line in lines) == 2 * 4, "two candidates, four tables"
    assert len(lines) == 4 * 3 + 2 * 4 + 1 + 4, "a folded cell would make another line"
    assert len({line.split("  ")[0] for line in lines if line.startswith("A-Model")}) == 2, (
        "two names that differ"
    )


@pytest.mark.slow
def test_three_candidates_of_known_order_come_out_in_it(tmp_path, hurry):
    """One that learned long from such texts, one that learned less, one that never did, and one with no tokenizer there."""
    import torch
    from transformers import AutoModelForCausalLM

    from stillhouse import Distiller
    from stillhouse import objectives as kd
    from stillhouse.models.load import load_tokenizer

    recipe = tiny.language_recipe(tmp_path)
    texts = [json.loads(line) for line in (tmp_path / "text.jsonl").read_text().splitlines()]
    for name, steps in (("long", 120), ("short", 20), ("never", 0)):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "teacher")
        tokenizer = load_tokenizer(tmp_path / "teacher")
        if steps:
            Distiller(
                model=model, objective=[kd.hard()], args=tiny.arguments(tmp_path / "x", max_steps=steps, seed=1),
                train_dataset=texts, processing_class=tokenizer,
            ).train()  # fmt: skip
        with torch.no_grad():
            model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    recipe["student"] = {"model": str(tiny.save_language_model(tmp_path / "student", layers=2, seed=4))}
    load_tokenizer(tmp_path / "teacher").save_pretrained(tmp_path / "student")
    recipe["train"] = {**recipe["train"], "steps": 600, "learning_rate": 1e-2}
    write_recipe(tmp_path / "r.yaml", recipe)
    names = ",".join(str(tmp_path / name) for name in ("never", "missing", "short", "long"))
    said = stillhouse(
        "teachers",
        tmp_path / "r.yaml",
        "--candidates",
        names,
        "--folder",
        tmp_path / "run",
        "--format",
        "json",
    )
    assert said.code == 0, said.err
    found = json.loads(said.out)
    order = [row["candidate"].rpartition("/")[2] for row in found["candidates"]]
    assert order == ["long", "short", "never", "missing"]
    assert "missing" in found["candidates"][-1]["why"]
    assert found["steps"] <= 0.05 * found["of_steps"]
