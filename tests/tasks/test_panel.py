"""A panel of models in the place of one: in a batch, on disk, and as what a recipe asks for."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import tiny
from stillhouse.data.encode import write_examples
from stillhouse.errors import DataError, RecipeError
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.recipe import Member, Pool, parse_recipe
from stillhouse.steps.panel import _numbered, make_panel
from stillhouse.tasks import make_task
from stillhouse.tasks.panel import Panel, load_panel, members_of, write_panel
from stillhouse.teachers.local import LocalTeacher
from typed import stillhouse, write_recipe


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("members")
    made = []
    for name, seed in (("one", 1), ("two", 2), ("three", 3)):
        if made:  # the same tokenizer: training one twice gives two
            shutil.copytree(made[0], place / name)
        else:
            tiny.save_classifier(place / name)
        model = AutoModelForSequenceClassification.from_pretrained(place / name)
        with torch.no_grad():
            model.classifier.weight.normal_(generator=torch.Generator().manual_seed(seed))
        model.save_pretrained(place / name)
        made.append(place / name)
    return made


@pytest.fixture(scope="module")
def task(folders):
    return make_task("classification", load_tokenizer(folders[0]), 32, ["bad", "good"])


def batch_of(task, rows=6):
    named = [{"id": str(n), "where": "", **row} for n, row in enumerate(tiny.opinions(rows))]
    return task.collate(task.encode(named)[0])


def test_kept_and_online_targets_of_a_panel_are_the_mean_at_the_objectives_temperature(folders, task):
    members = [task.load(folder) for folder in folders]
    weights = [0.5, 0.25, 0.25]
    batch, temperature = batch_of(task), 2.0
    teacher = LocalTeacher(Panel(members, weights=weights), task)
    with torch.no_grad():
        each = [task.scores(member, batch).hidden for member in members]
    expected = sum(w * (z / temperature).softmax(-1) for w, z in zip(weights, each, strict=True))
    kept = teacher.topk(batch, 2, temperature)
    torch.testing.assert_close(kept.log_p.exp(), expected.gather(-1, kept.ids), rtol=1e-5, atol=1e-6)
    dense = teacher.signal(batch).at(temperature)
    torch.testing.assert_close((dense.logits(slice(0, 6)) / temperature).softmax(-1), expected)


def test_a_row_with_a_route_is_taught_by_that_member_alone(folders, task):
    members = [task.load(folder) for folder in folders]
    batch = batch_of(task)
    panel = Panel(members, routes={batch["keys"][1]: 2})
    with torch.no_grad():
        said = task.scores(panel, batch)
        logits = said.head.logits(said.hidden)
        third, mean = task.scores(members[2], batch).hidden, task.scores(Panel(members), batch)
    torch.testing.assert_close(logits[1].softmax(-1), third[1].softmax(-1))
    torch.testing.assert_close(logits[0], mean.head.logits(mean.hidden)[0])


def test_a_panel_of_language_models_pools_each_position(tmp_path):
    folders = [tiny.save_language_model(tmp_path / str(seed), layers=1, seed=seed) for seed in (0, 1)]
    task = make_task("causal_lm", load_tokenizer(folders[0]), 24)
    write_panel(tmp_path / "panel", folders, pool="mean", weights=[0.75, 0.25])
    assert members_of(tmp_path / "panel") == folders
    panel = load_panel(task, tmp_path / "panel", torch.float32)
    rows = [{"id": "0", "where": "", "text": text} for text in tiny.sentences(3)]
    batch = task.collate(task.encode(rows)[0][:2])
    with torch.no_grad():
        said = task.scores(panel, batch)
        each = [task.scores(member, batch) for member in panel.members]
        expected = sum(
            w * one.head.logits(one.hidden).softmax(-1) for w, one in zip((0.75, 0.25), each, strict=True)
        )
    torch.testing.assert_close(said.head.logits(said.hidden).softmax(-1), expected, rtol=1e-4, atol=1e-6)
    assert said.head.outcomes(said.hidden) == task.outcomes
    ids = batch["input_ids"][:1, :5]
    written = panel.generate(ids, 6, 6)
    for _ in range(6):  # without a cache, written out
        with torch.no_grad():
            said = [member(input_ids=ids, use_cache=False).logits[0, -1] for member in panel.members]
        best = (0.75 * said[0].softmax(-1) + 0.25 * said[1].softmax(-1)).argmax()
        ids = torch.cat([ids, best.view(1, 1)], -1)
    assert torch.equal(written, ids)


def values(folders, tmp_path, **teacher):
    tiny.labelled_file(tmp_path / "rows.csv")
    return {
        "name": "panel",
        "task": "classification",
        "teacher": {"panel": [{"model": str(folder)} for folder in folders], **teacher},
        "student": {"from_teacher": {"layers": 1, "rows": 8}},
        "data": {"train": {"source": str(tmp_path / "rows.csv")}, "split": 40, "max_length": 32},
        "label": {"top_k": 2},
    }


def test_the_first_member_lends_its_tokenizer_and_layers(folders, tmp_path):
    recipe = parse_recipe(values(folders, tmp_path))
    assert recipe.teacher.model == str(folders[0])


@pytest.mark.parametrize(
    ("teacher", "remedy"),
    [
        ({"finetune": {"epochs": 1}}, "fine-tune each in a run of its own"),
        ({"pool": {"by": "column"}}, "name the column"),
        ({"pool": {"by": "mean", "column": "who"}}, "only then"),
        ({"panel": [{"model": "a"}]}, "at least two"),
        ({"panel": [{"model": "a"}, {"model": "a"}]}, "same name"),
        ({"model": "a", "panel": None, "pool": {"by": "mean"}}, "no panel to pool"),
    ],
)
def test_settings_of_a_panel_that_do_not_fit_are_named(folders, tmp_path, teacher, remedy):
    with pytest.raises(RecipeError, match=remedy):
        parse_recipe(values(folders, tmp_path, **teacher))


def test_a_row_that_names_nobody_on_the_panel_is_refused():
    assert _numbered({"k": "two"}, ["one", "two"]) == {"k": 1}
    with pytest.raises(DataError, match="names the member 'four'"):
        _numbered({"k": "four"}, ["one", "two"])


@pytest.mark.parametrize("by", ["learned", "validation"])
def test_members_are_judged_by_the_rows_set_aside_and_by_training_rows_only_where_none_are(
    folders, task, tmp_path, by
):
    """Each member labels one of the sets, so that it alone is always right there."""
    plain = task.encode([{"id": str(n), "where": "", **row} for n, row in enumerate(tiny.opinions(24))])[0]
    (tmp_path / "prepare").mkdir()
    for folder, name in zip(folders, ("train", "validation"), strict=False):
        with torch.no_grad():
            said = task.scores(task.load(folder), task.collate(plain)).hidden.argmax(-1).tolist()
        own = [replace(one, labels=[label]) for one, label in zip(plain, said, strict=True)]
        write_examples(tmp_path / "prepare" / f"{name}.parquet", own)
    members = [{"folder": str(one), "identity": one.name, "name": one.name} for one in folders[:2]]
    teacher = SimpleNamespace(
        pool=Pool(by=by),
        context=None,
        context_column=None,
        model=None,
        panel=[Member(model=str(one)) for one in folders[:2]],
    )
    recipe = SimpleNamespace(teacher=teacher, label=SimpleNamespace(batch_size=8))

    def best(validation):
        facts = {"panel": members, "validation": validation, "contexts": None}
        found = make_panel(recipe, task, facts, tmp_path / "teacher", Silent())
        right = found["weights"] if by == "learned" else [min(row) for row in found["table"]]
        assert abs(right[0] - right[1]) > 0.1
        return right.index(max(right))

    assert best(None) == 0
    assert best({"rows": 24}) == 1
    nobody = [replace(one, labels=[-100]) for one in plain]
    write_examples(tmp_path / "prepare" / "validation.parquet", nobody)
    assert best({"rows": 24}) == 0


@pytest.mark.slow
def test_a_validation_table_is_made_by_the_teacher_stage_and_reused(folders, tmp_path, hurry):
    recipe = write_recipe(tmp_path / "r.yaml", values(folders, tmp_path, pool={"by": "validation"}))
    for _ in range(2):
        said = stillhouse("run", recipe, "--folder", tmp_path / "run", "--until", "label", "--format", "json")
        assert said.code == 0, said.err
    assert "teacher" not in said.err
    assert (tmp_path / "run" / "teacher" / "panel" / "panel.json").exists()
