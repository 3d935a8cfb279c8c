"""A recipe becomes the runs it means, each of which is a recipe; what cannot be is refused before anything is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from stillhouse.errors import DataError, RecipeError
from stillhouse.models.described import skeleton_in
from stillhouse.models.shrink.requests import fixed_sizes, shapes_within
from stillhouse.plans import price
from stillhouse.plans.ablation import WHOLE, expand_ablation
from stillhouse.plans.check import refuse_rounds
from stillhouse.plans.expand import expand
from stillhouse.plans.planned import Planned, in_order, plain, renamed
from stillhouse.plans.rounds import hard_only
from stillhouse.plans.sizes import between
from stillhouse.recipe import FromTeacher, Recipe, Target, parse_recipe
from stillhouse.recipe.text import recipe_text
from stillhouse.recipe.yaml import parse_yaml
from typed import process, stillhouse, write_recipe

BASE: dict[str, Any] = {
    "name": "toy",
    "seed": 5,
    "task": "causal_lm",
    "teacher": {"model": "/nowhere"},
    "student": {"from_teacher": {"layers": 2}},
    "data": {"train": {"source": "/nowhere.jsonl"}},
    "train": {"steps": 90, "learning_rate": 1e-3},
    "objective": [{"kind": "forward_kl", "weight": 0.8}, {"kind": "hard", "weight": 0.2}],
}
PHASES = [{"name": "short", "set": {"data.max_length": 32}}, {"name": "long"}]


def recipe(**changes: Any) -> Recipe:
    return parse_recipe({**BASE, **changes})


def runs_of(**changes: Any) -> dict[str, Planned]:
    return {one.name: one for one in expand(recipe(**changes)).runs}


def chain(*runs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"plan": {"kind": "chain", "runs": list(runs), **more}}


# ── sweeps ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sweep_is_every_combination_and_each_run_is_a_plain_recipe() -> None:
    swept = {"train.learning_rate": [1e-3, 2e-3], "label.top_k": [16, 32, "all"]}
    plan = expand(recipe(sweep=swept))
    found = {(one.values["train"]["learning_rate"], one.values["label"]["top_k"]) for one in plan.runs}
    assert found == {(rate, k) for rate in (1e-3, 2e-3) for k in (16, 32, "all")}
    assert len({one.name for one in plan.runs}) == 6
    assert not any(parse_recipe(one.values).is_plan for one in plan.runs)


def test_seeds_are_repeats_of_one_group_and_not_settings_to_be_compared() -> None:
    plan = expand(recipe(sweep={"train.learning_rate": [1e-3, 2e-3], "train.seed": [0, 1, 2]}))
    assert {name: len(runs) for name, runs in plan.groups().items()} == {
        "learning_rate 0.001": 3,
        "learning_rate 0.002": 3,
    }
    assert plan.compare == [("learning_rate 0.002", "learning_rate 0.001")]


def test_settings_are_compared_with_the_recipes_own_wherever_it_stands() -> None:
    plan = expand(recipe(sweep={"train.learning_rate": [3e-3, 1e-3, 2e-3]}))
    assert {other for _, other in plan.compare} == {"learning_rate 0.001"}
    assert len(plan.compare) == 2


def test_speed_is_measured_once_for_each_shape() -> None:
    plan = expand(recipe(sweep={"student.from_teacher.layers": [1, 2], "train.seed": [0, 1]}))
    assert [one.values["evaluate"]["speed"] for one in plan.runs] == [True, False, True, False]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"train.learning_rat": [1]}, r"train.learning_rat: no such key. Did you mean 'learning_rate'"),
        ({"objective.7.weight": [1.0]}, r"sweep: objective is a list of 2"),
        ({"train.learning_rate": [1e-3, -1.0]}, r"learning_rate -1.*greater than 0"),
        ({"train.learning_rate": []}, r"has no values"),
        ({"seed": list(range(2000))}, r"2,000 combinations"),
    ],
)
def test_a_wrong_sweep_is_one_sentence(sweep: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        expand(recipe(sweep=sweep))


def test_a_long_point_still_has_a_folder_name(tmp_path: Path) -> None:
    swept = {"description": ["a/b " * 40, "ü" * 90], "train.report_to": [[], ["wandb"]]}
    runs = expand(recipe(sweep=swept)).runs
    assert len(runs) == 4
    for one in runs:
        assert parse_recipe(one.values).name == one.name
        (tmp_path / one.name).mkdir()


def test_a_plan_survives_being_written_as_text() -> None:
    one = recipe(
        plan={"kind": "assistants", "sizes": [{"from_teacher": {"layers": 3}}]},
        sweep={"train.seed": [0, 1]},
        tune={
            "space": {
                "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
                "train.batch_size": [4, 8],
            }
        },
    )
    assert parse_recipe(parse_yaml(recipe_text(one), "text")) == one


# ── order, names and circles ────────────────────────────────────────────────────────────────────────────────────────


def test_runs_come_after_what_they_need_however_they_are_written() -> None:
    runs = chain(
        {"name": "c", "set": {"student": {"model": "run:b"}, "teacher": {"model": "run:a"}}},
        {"name": "b", "set": {"student": {"model": "run:a/initial"}}},
        {"name": "a"},
    )
    found = runs_of(**runs)
    assert list(found) == ["a", "b", "c"]
    assert found["c"].needs == ["a", "b"]


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (chain({"name": "a", "set": {"teacher": {"model": "run:a"}}}), r"wait for each other \(a → a\)"),
        (
            chain(
                {"name": "a", "set": {"teacher": {"model": "run:c"}}},
                {"name": "b", "set": {"teacher": {"model": "run:a"}}},
                {"name": "c", "set": {"student": {"model": "run:b"}}},
            ),
            r"wait for each other \(a → c → b → a\)",
        ),
        (chain({"name": "a", "set": {"teacher": {"model": "run:aa"}}}), r"needs run:aa.*Did you mean 'a'"),
        (chain({"name": "a"}, {"name": "a"}), r"two runs are called 'a'"),
        (chain({"name": "a"}, compare={"a": "z"}), r"plan.compare: there is no run 'z'"),
        (chain({"name": "a", "set": {"train.stesp": 3}}), r"run a: train.stesp: no such key"),
    ],
)
def test_a_plan_that_cannot_be_is_one_sentence(runs: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        expand(recipe(**runs))


def test_a_circle_is_code_2_before_torch_is_imported(tmp_path: Path) -> None:
    values = {
        **BASE,
        "teacher": {"model": str(tmp_path)},
        "data": {"train": {"source": str(tmp_path / "x.jsonl")}},
    }
    (tmp_path / "x.jsonl").write_text('{"text": "a b"}\n')
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 4}')
    (tmp_path / "tokenizer.json").write_text('{"model": {}, "added_tokens": []}')
    (tmp_path / "w.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    circle = chain({"name": "a", "set": {"teacher": {"model": "run:a"}}})
    path = write_recipe(tmp_path / "r.yaml", {**values, **circle})
    script = (
        "import sys\nfrom stillhouse.cli import main\ntry:\n main()\nfinally:\n print('torch' in sys.modules)"
    )
    said = process("run", path, script=script)
    assert said.code == 2, said.err
    assert said.err.count("\n") == 1
    assert "wait for each other (a → a)" in said.err
    assert said.out.strip() == "False"
    for command in ("validate", "plan"):
        assert stillhouse(command, path).err == said.err


def test_a_suffix_goes_to_names_and_to_what_refers_to_them() -> None:
    values = {
        "name": "b",
        "teacher": {"model": "run:a"},
        "student": {"model": "run:a/initial"},
        "x": {"model": "/a"},
    }
    found = renamed(Planned("b", values, "", "b"), ".seed-1", "b")
    assert found.name == found.values["name"] == "b.seed-1"
    assert found.values["teacher"]["model"] == "run:a.seed-1"
    assert found.values["student"]["model"] == "run:a.seed-1/initial"
    assert found.values["x"]["model"] == "/a"
    assert found.needs == ["a.seed-1"]


def test_runs_of_a_swept_plan_refer_to_their_own_point() -> None:
    found = runs_of(plan={"kind": "generations", "count": 2}, sweep={"train.seed": [0, 1]})
    assert found["generation-2.seed-1"].needs == ["generation-1.seed-1"]
    assert in_order(list(found.values())) == list(found.values())


# ── kinds: budgets and controls ─────────────────────────────────────────────────────────────────────────────────────


def steps(found: dict[str, Planned]) -> dict[str, Any]:
    return {name: one.values["train"]["steps"] for name, one in found.items()}


def test_a_chain_of_assistants_spends_what_its_control_spends() -> None:
    sizes = [{"from_teacher": {"layers": 6}}, {"from_teacher": {"layers": 4}}]
    found = runs_of(plan={"kind": "assistants", "sizes": sizes})
    assert steps(found) == {"assistant-1": 30, "assistant-2": 30, "student": 30, "direct": 90}
    assert found["assistant-2"].values["teacher"]["model"] == "run:assistant-1"
    assert found["student"].values["teacher"]["model"] == "run:assistant-2"
    assert found["direct"].needs == []


def test_an_assistant_that_teaches_is_not_fine_tuned_again() -> None:
    found = runs_of(
        task="classification",
        teacher={"model": "/nowhere", "finetune": {"epochs": 1}},
        plan={"kind": "assistants", "sizes": [{"from_teacher": {"layers": 4}}]},
    )
    assert found["assistant-1"].values["teacher"]["finetune"] is not None
    assert parse_recipe(found["student"].values).teacher.finetune is None


def test_generations_have_one_shape_and_a_control_that_trains_as_long_as_all() -> None:
    plan = expand(recipe(plan={"kind": "generations", "count": 3}))
    found = {one.name: one for one in plan.runs}
    assert steps(found) == {"generation-1": 90, "generation-2": 90, "generation-3": 90, "longer": 270}
    assert found["generation-3"].values["teacher"]["model"] == "run:generation-2"
    assert found["generation-3"].values["student"]["model"] == "run:generation-1/initial"
    assert len({one.values["train"]["seed"] for one in plan.runs if one.name != "longer"}) == 3
    assert plan.ensembles == {"ensemble": ["generation-1", "generation-2", "generation-3"]}
    assert ("generation-3", "longer") in plan.compare


def test_phases_go_on_from_each_other_and_the_control_has_all_their_steps() -> None:
    found = runs_of(plan={"kind": "phases", "phases": PHASES})
    assert found["long"].values["student"]["model"] == "run:short"
    assert found["short"].values["data"]["max_length"] == 32
    assert found["direct"].values["train"]["steps"] == 180
    assert found["direct"].values["student"]["model"] is None


def test_phases_that_count_differently_have_no_control_and_say_so() -> None:
    phases = [PHASES[0], {"name": "long", "set": {"train.steps": None, "train.epochs": 2}}]
    plan = expand(recipe(plan={"kind": "phases", "phases": phases}))
    assert [one.name for one in plan.runs] == ["short", "long"]
    assert "no control" in plan.notes[0]


def test_each_task_has_a_control_that_starts_where_the_general_student_started() -> None:
    tasks = [{"name": "one", "set": {"seed": 1}}, {"name": "two", "set": {"seed": 2}}]
    plan = expand(recipe(plan={"kind": "tasks", "tasks": tasks}))
    found = {one.name: one for one in plan.runs}
    assert found["two"].values["student"]["model"] == "run:general"
    assert found["two-alone"].values["student"]["model"] == "run:general/initial"
    assert plan.compare == [("one", "one-alone"), ("two", "two-alone")]


def test_epochs_are_shared_out_as_steps_are() -> None:
    found = runs_of(
        train={"epochs": 3.0}, plan={"kind": "assistants", "sizes": [{"from_teacher": {"layers": 4}}]}
    )
    assert found["student"].values["train"]["epochs"] == 1.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sweep": {"seed": [1]}}, "once for each setting"),
        ({"data": {**BASE["data"], "extra": {"source": "/x"}}}, "become data.extra, which this recipe has"),
        ({"objective": [{"kind": "hard"}]}, "need a teacher"),
        (
            {"plan": {"kind": "rounds", "pool": {"source": "/pool"}, "judge": "answers"}},
            "add evaluate.answers",
        ),
    ],
)
def test_rounds_that_cannot_be_are_refused_before_anything_runs(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        refuse_rounds(recipe(**{"plan": {"kind": "rounds", "pool": {"source": "/pool"}}, **changes}))


@pytest.mark.parametrize("task", ["causal_lm", "masked_lm"])
def test_the_control_of_rounds_has_all_their_steps_on_labelled_rows_alone(task: str) -> None:
    plan = {"kind": "rounds", "pool": {"source": "/pool"}, "most": 2}
    chosen = {**BASE["data"], "extra": {"source": "/chosen"}}
    one = recipe(plan=plan, gate={"min_gain": 0.1}, task=task)
    made = hard_only(one, 2, Planned("round-2", {**plain(one), "data": chosen}, ""))
    assert made.values["train"]["steps"] == 3 * one.train.steps
    assert made.values["student"]["model"] == "run:round-0/initial"
    assert made.values["data"]["extra"] == {"source": "/chosen"}
    assert not parse_recipe(made.values).has_teacher


@pytest.mark.parametrize("perturb", [[], ["paraphrase"]])
def test_the_control_of_rounds_keeps_the_writer_of_held_out_rows_alone(perturb: list[str]) -> None:
    """Its rows from the writer are gone for want of a label; who paraphrases the held-out ones is still needed."""
    one = recipe(
        task="classification",
        data={
            **BASE["data"],
            "writer": {"model": "/writer"},
            "generate": [{"kind": "paraphrase", "keep_label": False}],
        },
        plan={"kind": "rounds", "pool": {"source": "/pool"}},
        evaluate={"perturb": perturb},
    )
    made = parse_recipe(hard_only(one, 1).values)
    assert made.data.generate == [] and (made.data.writer is not None) == bool(perturb)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            chain(
                {"name": "middle", "set": {"student.from_teacher.layers": 3}},
                {"name": "small", "set": {"teacher": {"model": "run:middle"}, "student.from_teacher.layers": [0, 3]}},
            ),
            "run small: student.from_teacher.layers: the teacher has only 3 layers",
        ),
        (
            chain(
                {"name": "a", "set": {"student": {"target": {"parameters": "30K"}}}},
                {"name": "b", "set": {"teacher": {"model": "run:a"}, "student": {"target": {"parameters": "40K"}}}},
            ),
            "run b: student.target: parameters: 40K is more than the teacher has in this shape (29,",
        ),
        (
            chain(
                {"name": "a", "set": {"student": {"from_teacher": {"heads": 2}}}},
                {"name": "b", "set": {"teacher": {"model": "run:a"}, "student": {"from_teacher": {"heads": 3}}}},
            ),
            "run b: student.from_teacher.heads: the teacher has only 2",
        ),
        (
            chain({"name": "a"}, {"name": "b", "set": {"student": {"model": "run:a"}, "data.train.source": "/none"}}),
            "run b: /none",
        ),
        ({"plan": {"kind": "rounds", "pool": {"source": "/none.jsonl"}}}, "plan.pool: /none.jsonl"),
        (
            {"plan": {"kind": "assistants", "sizes": [{"from_teacher": {"layers": 9}}]}},
            "run assistant-1: student.from_teacher.layers: the teacher has only 4 layers",
        ),
        ({"student": {"target": {"parameters": "1K"}}, "plan": {"kind": "generations"}}, "no shape of this teacher"),
    ],
)  # fmt: skip
def test_a_run_that_needs_another_one_is_checked_before_anything_is_loaded(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yaml", tiny.language_recipe(tmp_path, **changes))
    for command in ("validate", "run", "plan"):
        found = stillhouse(command, path)
        assert found.code == (3 if "none" in said else 2), found.err
        assert said in " ".join(found.err.split())
    assert not (Path("runs") / "tiny").exists()


def test_a_chain_that_can_be_is_not_refused(tmp_path: Path) -> None:
    runs = chain(
        {"name": "a", "set": {"student": {"target": {"parameters": "30K"}}}},
        {"name": "b", "set": {"teacher": {"model": "run:a"}, "student": {"target": {"parameters": "20K"}}}},
        {"name": "c", "set": {"student": {"model": "run:b", "sparsity": {"pattern": "2:4"}}}},
        {"name": "d", "set": {"student": {"from_config": {"config": {"num_hidden_layers": 3}}}}},
        {
            "name": "e",
            "set": {"teacher": {"model": "run:d"}, "student": {"from_teacher": {"layers": [0, 2]}}},
        },
    )
    path = write_recipe(tmp_path / "r.yaml", tiny.language_recipe(tmp_path, **runs))
    found = stillhouse("validate", path)
    assert found.code == 0, found.err
    assert "plan: 5 runs: a, b, c, d, e" in found.out


# ── sizes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def described(folder: Path, **config: Any) -> Path:
    """A teacher of which only the configuration is there."""
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_sizes_between_are_evenly_spaced_in_magnitude(tmp_path: Path) -> None:
    student = parse_recipe(BASE | {"student": {"from_teacher": {"layers": 2}}}).student
    made = between(student, described(tmp_path, num_hidden_layers=32), 3)
    assert [one["from_teacher"]["layers"] for one in made] == [16, 8, 4]


def test_an_assistant_is_between_in_width_as_well_and_of_a_shape_that_the_family_can_have(
    tmp_path: Path,
) -> None:
    """Heads of a BERT are hidden_size ÷ heads wide: 16 here, so that 45 is no width."""
    tiny.save_classifier(tmp_path / "teacher", layers=4, width=64)
    cut = {"layers": [0, 3], "hidden_size": 32, "intermediate_size": 40}
    student = parse_recipe(BASE | {"student": {"from_teacher": cut}}).student
    made = between(student, tmp_path / "teacher", 1)
    assert made == [{"from_teacher": {"layers": 3, "intermediate_size": 72, "hidden_size": 48}}]
    widths = parse_recipe(BASE | {"student": {"from_teacher": {"intermediate_size": 32}}}).student
    assert between(widths, tmp_path / "teacher", 1) == [{"from_teacher": {"intermediate_size": 64}}]


def test_named_layers_are_the_teachers_and_an_assistant_gives_as_many() -> None:
    """Layer 5 of a teacher of six is none of an assistant of three."""
    found = runs_of(
        student={"from_teacher": {"layers": [0, 5], "rows": 32}},
        plan={"kind": "assistants", "sizes": [{"from_teacher": {"layers": 3}}]},
    )
    assert found["student"].values["student"]["from_teacher"]["layers"] == 2
    assert found["student"].values["student"]["from_teacher"]["rows"] == 32
    assert found["direct"].values["student"]["from_teacher"]["layers"] == [0, 5]


def test_a_width_between_can_be_divided_by_the_heads(tmp_path: Path) -> None:
    config = {"hidden_size": 96, "num_attention_heads": 3, "num_hidden_layers": 2, "initializer_range": 0.05}
    student = parse_recipe(BASE | {"student": {"from_config": {"config": config}}}).student
    teacher = {
        "hidden_size": 384,
        "num_attention_heads": 12,
        "num_hidden_layers": 6,
        "initializer_range": 0.02,
    }
    made = between(student, described(tmp_path, **teacher), 1)[0]["from_config"]["config"]
    assert made["hidden_size"] == 192 and made["hidden_size"] % made["num_attention_heads"] == 0
    assert made["num_hidden_layers"] == 3
    assert made["initializer_range"] == 0.05


def test_assistants_are_made_as_the_student_is_but_for_their_size(tmp_path: Path) -> None:
    """Each is between the teacher and the student, and not between another assistant and the student."""
    cut = {"layers": 2, "by": "every_nth", "rows": 8}
    student = parse_recipe(BASE | {"student": {"from_teacher": cut}}).student
    described(tmp_path, num_hidden_layers=32, hidden_size=64)
    made = between(student, tmp_path, 3)
    assert made == [{"from_teacher": {**cut, "layers": layers}} for layers in (16, 8, 4)]
    fresh = {"config": {"num_hidden_layers": 2}, "layers": "teacher", "embeddings": "random"}
    student = parse_recipe(BASE | {"student": {"from_config": fresh}}).student
    made = between(student, tmp_path, 3)
    assert made == [
        {"from_config": {**fresh, "config": {"num_hidden_layers": layers}}} for layers in (16, 8, 4)
    ]


def test_no_room_for_an_assistant_is_said(tmp_path: Path) -> None:
    student = parse_recipe(BASE | {"student": {"from_teacher": {"layers": 2}}}).student
    with pytest.raises(RecipeError, match=r"no 2 sizes between 4 and 2 layers"):
        between(student, described(tmp_path, num_hidden_layers=4), 2)


def test_sizes_are_chosen_from_the_teachers_own_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 18}))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    found = runs_of(teacher={"model": str(tmp_path)}, plan={"kind": "assistants", "sizes": 1})
    assert found["assistant-1"].values["student"] == {"from_teacher": {"layers": 6}}


@pytest.mark.parametrize(
    ("task", "save"),
    [("classification", tiny.save_classifier), ("causal_lm", tiny.save_language_model)],
)
def test_assistants_of_a_student_with_a_target_are_between_the_teacher_and_the_shape_that_meets_it(
    tmp_path: Path, task: str, save: Any
) -> None:
    """All runs that are compared have that shape, whichever teacher it is cut out of."""
    teacher = tmp_path / "teacher"
    save(teacher, layers=4, width=64)
    skeleton = skeleton_in(teacher)
    most = skeleton.parameters(skeleton.shape)
    wanted = {"target": {"parameters": most // 3}}
    found = runs_of(teacher={"model": str(teacher)}, student=wanted, plan={"kind": "assistants"}, task=task)
    student = parse_recipe(found["direct"].values).student
    assert student.target is None and found["student"].values["student"] == found["direct"].values["student"]
    shape = shapes_within(skeleton, Target(**wanted["target"]), fixed_sizes(FromTeacher(), skeleton), 256)[0]
    assert student.from_teacher is not None
    assert skeleton.wanted(**fixed_sizes(student.from_teacher, skeleton)) == shape
    middle = parse_recipe(found["assistant-1"].values).student.from_teacher
    assert middle is not None
    larger = skeleton.wanted(**fixed_sizes(middle, skeleton))
    assert skeleton.parameters(shape) < skeleton.parameters(larger) < most
    assert skeleton.reshaped(larger).wanted(**fixed_sizes(student.from_teacher, skeleton)) == shape


@pytest.mark.parametrize(
    ("student", "said"),
    [
        (
            {"target": {"tokens_per_second": "1.5x"}},
            r"student.target.tokens_per_second is known once it is measured",
        ),
        (
            {"target": {"parameters": 20_000}, "search": {}},
            r"student.search finds the student's shape in training",
        ),
        ({"model": "/nowhere"}, r"the student is a model of its own"),
    ],
)
def test_a_student_whose_shape_is_not_known_beforehand_needs_its_assistants_written_out(
    tmp_path: Path, student: dict[str, Any], said: str
) -> None:
    tiny.save_language_model(tmp_path, layers=4)
    with pytest.raises(RecipeError, match=said):
        runs_of(teacher={"model": str(tmp_path)}, student=student, plan={"kind": "assistants"})


# ── ablation ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_term_and_technique_is_left_out_once_with_the_same_seeds() -> None:
    objective = [{"kind": "forward_kl"}, {"kind": "hard"}, {"kind": "hidden"}]
    one = recipe(objective=objective, label={"online": True}, rollouts={"share": 0.5})
    plan = expand_ablation(one, 2)
    groups = plan.groups()
    assert list(groups) == [WHOLE, "without forward_kl", "without hard", "without hidden", "without rollouts"]
    assert all([run.values["train"]["seed"] for run in runs] == [5, 6] for runs in groups.values())
    assert [term["kind"] for term in groups["without hard"][0].values["objective"]] == [
        "forward_kl",
        "hidden",
    ]
    assert groups["without rollouts"][0].values["rollouts"] is None
    assert plan.compare == [(name, WHOLE) for name in list(groups)[1:]]


def test_a_term_of_weight_0_is_no_part_to_take_away() -> None:
    objective = [{"kind": "forward_kl"}, {"kind": "hard"}, {"kind": "js", "weight": 0.0}]
    assert list(expand_ablation(recipe(objective=objective), 1).groups()) == [
        WHOLE,
        "without forward_kl",
        "without hard",
    ]


def test_what_the_recipe_cannot_be_without_is_noted_and_not_run() -> None:
    one = recipe(
        task="classification",
        objective=[{"kind": "forward_kl"}, {"kind": "hard"}],
        data={**BASE["data"], "augment": {"copies": 2}},
    )
    plan = expand_ablation(one, 1)
    assert list(plan.groups()) == [WHOLE, "without hard", "without data.augment"]
    assert plan.notes[0].startswith("without forward_kl: not run")


def test_an_ablation_of_one_term_says_that_there_is_nothing_to_take_away() -> None:
    with pytest.raises(RecipeError, match="nothing can be removed"):
        expand_ablation(recipe(objective=[{"kind": "forward_kl"}]), 1)
    with pytest.raises(RecipeError, match="sweep: or plan:"):
        expand_ablation(recipe(sweep={"seed": [1]}), 1)


def test_who_the_teacher_is_and_how_it_labels_is_no_technique_to_take_away(tmp_path: Path) -> None:
    """An API without its address, or a language model that labels by names without that, is no teacher of this student."""
    soft = [{"kind": "forward_kl"}, {"kind": "hard"}]
    student = {"from_config": {"config": {"num_hidden_layers": 1}}, "tokenizer": "/nowhere"}
    for teacher in (
        {"model": "/nowhere", "zero_shot": {"labels": ["bad", "good"]}},
        {"api": {"base_url": "http://localhost:1/v1", "model": "big"}},
    ):
        one = recipe(task="classification", teacher=teacher, student=student, objective=soft)
        plan = expand_ablation(one, 1)
        assert not [note for note in plan.notes if "teacher." in note.partition(":")[0]]
        assert "without hard" in plan.groups()
        assert not [name for name in plan.groups() if name.startswith("without teacher.")]


def test_a_removal_that_static_checks_refuse_is_noted_and_the_others_are_run() -> None:
    data = {**BASE["data"], "filter": {"min_words": 3}}

    def check(made: Recipe) -> None:
        if made.data.filter is None:
            raise RecipeError("data.train: rows.jsonl has empty rows; mend them.")

    plan = expand_ablation(recipe(data=data, train={"early_stopping": {"every": 10}}), 2, check)
    assert list(plan.groups()) == [
        WHOLE,
        "without forward_kl",
        "without hard",
        "without train.early_stopping",
    ]
    assert plan.notes == [
        "without data.filter: not run, for the recipe cannot be without it (data.train: rows.jsonl has empty rows; mend them)"
    ]


def test_the_command_prices_the_other_removals_and_says_why_one_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few tokens a student may be that small, for all that is known beforehand; with all of them none is."""
    priced: list[str] = []

    def price_runs(loaded: Recipe, runs: list[Planned], *_: Any) -> dict[str, Any]:
        priced.extend(one.group for one in runs)
        return {"notes": ["a note of the price"]}

    monkeypatch.setattr(price, "price_runs", price_runs)
    student = {"target": {"parameters": "1K"}, "vocabulary": 200}
    path = write_recipe(tmp_path / "r.yaml", tiny.language_recipe(tmp_path, student=student))
    said = stillhouse("ablate", path, "--seeds", 1, "--price", "--format", "json", "--folder", tmp_path / "a")
    assert said.code == 0, said.err
    assert priced == [WHOLE, "without forward_kl", "without hard"]
    first, why = json.loads(said.out)["notes"]
    assert first == "a note of the price"
    assert why.startswith("without student.vocabulary: not run") and "no shape of this teacher" in why


def test_a_recipe_that_cannot_be_itself_is_refused_and_not_noted() -> None:
    def check(made: Recipe) -> None:
        raise DataError("rows.jsonl: is not there; name another file.")

    with pytest.raises(DataError, match="is not there"):
        expand_ablation(recipe(), 1, check)


WRITERS = {"model": "/writer", "others": [{"model": "/other"}]}


def test_what_models_write_is_taken_away_kind_by_kind_and_whoever_would_be_idle_goes_too() -> None:
    """Answers go with their prompts, the further writers and the judge; without any kind nobody writes."""
    generate = [
        {"kind": "answers", "temperature": 0.7, "samples": 2, "choose": "judge"},
        {"kind": "paraphrase"},
        {"kind": "paraphrase", "copies": 2},
    ]
    data = {"unlabelled": {"source": "/prompts.jsonl"}, "writer": WRITERS, "judge": {"model": "/judge"}}
    plan = expand_ablation(recipe(data={**BASE["data"], **data, "generate": generate}), 1)
    found = {name: runs[0].values["data"] for name, runs in plan.groups().items()}
    kinds = {name: [one["kind"] for one in made["generate"]] for name, made in found.items()}
    prefix = "without data.generate"
    assert kinds[f"{prefix}: answers"] == ["paraphrase", "paraphrase"]
    assert found[f"{prefix}: answers"]["unlabelled"] is found[f"{prefix}: answers"]["judge"] is None
    assert found[f"{prefix}: answers"]["writer"]["model"] == "/writer"
    assert found[f"{prefix}: answers"]["writer"]["others"] == []
    assert found[f"{prefix}: paraphrase (2)"]["generate"][1]["copies"] == 1
    assert found[f"{prefix}: paraphrase (1)"]["writer"] == found[WHOLE]["writer"]
    assert found[prefix]["writer"] is found[prefix]["judge"] is found[prefix]["unlabelled"] is None
    assert kinds[prefix] == []
    assert "without data.unlabelled" not in found, "the answers would then take the place of the data's own"
    assert found["without data.writer"]["generate"] == found[WHOLE]["generate"], "the teacher writes"
    assert plan.notes[0].startswith("without data.judge: not run")


def test_a_writer_that_still_has_held_out_rows_to_say_in_other_words_stays() -> None:
    evaluate = {"perturb": ["paraphrase"]}
    data = {"writer": {"model": "/writer"}, "generate": [{"kind": "paraphrase"}]}
    plan = expand_ablation(recipe(data={**BASE["data"], **data}, evaluate=evaluate), 1)
    without = plan.groups()["without data.generate: paraphrase"][0].values["data"]
    assert without["writer"]["model"] == "/writer"
    assert not [name for name in plan.groups() if name == "without data.generate"], "one kind is all of them"


def test_a_judge_of_a_filter_that_is_taken_away_goes_with_it() -> None:
    data = {"filter": {"min_score": 0.5}, "judge": {"model": "/judge"}}
    groups = expand_ablation(recipe(data={**BASE["data"], **data}), 1).groups()
    assert groups["without data.filter"][0].values["data"]["judge"] is None


@pytest.mark.parametrize("context", ["Be brief.", {"column": "facts"}])
def test_techniques_of_a_single_field_are_taken_away(context: Any) -> None:
    weight = {"start": 1.0, "end": 0.1}
    train = {**BASE["train"], "rationale_weight": weight}
    one = recipe(teacher={"model": "/nowhere", "context": context}, train=train)
    groups = expand_ablation(one, 1).groups()
    assert list(groups)[3:] == ["without teacher.context", "without train.rationale_weight"]
    assert groups["without teacher.context"][0].values["teacher"]["context"] is None
    assert groups["without train.rationale_weight"][0].values["train"]["rationale_weight"] == 1.0


def test_plain_values_hold_nothing_that_would_make_several_runs() -> None:
    assert not {"sweep", "plan", "tune"} & set(plain(recipe(sweep={"seed": [1]}, tune={"trials": 3})))


def test_a_later_phase_learns_in_the_form_that_the_recipe_asks_for_and_a_gate_on_the_gain_stays_on_the_product() -> (
    None
):
    student = {"from_teacher": {"layers": 2}, "quantize": {"weights": "int8"}}
    found = runs_of(student=student, plan={"kind": "phases", "phases": PHASES}, gate={"min_gain": 0.1})
    assert found["long"].values["student"]["quantize"]["weights"] == "int8"
    assert [found[name].values["gate"]["min_gain"] for name in ("short", "long", "direct")] == [
        None,
        None,
        0.1,
    ]
