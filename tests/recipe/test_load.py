"""From a file to a Recipe: nothing unknown gets in, and what is wrong is said in the words of the file."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from stillhouse.errors import RecipeError
from stillhouse.held_out import MADE
from stillhouse.recipe import FromTeacher, Recipe, load_recipe, parse_recipe
from stillhouse.recipe.text import recipe_text

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


def values(**changes: Any) -> dict[str, Any]:
    """A small valid recipe; `changes` has a__b=value, and ... removes a key."""
    made: dict[str, Any] = {
        "name": "small",
        "task": "causal_lm",
        "teacher": {"model": "teachers/one"},
        "student": {"from_teacher": {"layers": 2}},
        "data": {"train": {"source": "rows.jsonl"}},
        "objective": [{"kind": "forward_kl"}, {"kind": "hard", "weight": 0.2}],
        "train": {"steps": 10},
    }
    for name, value in changes.items():
        place, steps = made, name.split("__")
        for step in steps[:-1]:
            place = place.setdefault(step, {})
        if value is ...:
            del place[steps[-1]]
        else:
            place[steps[-1]] = value
    return made


def refused(**changes: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(values(**changes), "my.yaml")
    return str(caught.value)


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump(values(**changes), sort_keys=False), encoding="utf-8")
    return path


# ── unknown keys ────────────────────────────────────────────────────────────────────────────────────────────────────

MISSPELT = {
    "tsk": "task", "teacher__modl": "model", "teacher__finetun": "finetune", "student__from_techer": "from_teacher",
    "student__from_teacher__layer": "layers", "data__trian": "train", "data__train__sorce": "source",
    "data__max_lenght": "max_length", "label__topk": "top_k", "train__learning_rat": "learning_rate",
    "evaluate__hard_onli": "hard_only", "report__sample": "samples", "gate__min_retension": "min_retention",
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "meant"), MISSPELT.items())
def test_a_misspelt_key_at_any_level_is_refused_and_says_what_was_meant(wrong: str, meant: str) -> None:
    said = refused(**{wrong: 1})
    assert f"{wrong.replace('__', '.')}: no such key. Did you mean {meant!r}?" in said


def test_a_misspelt_key_in_a_list_is_found_with_its_place() -> None:
    assert "objective[1].wieght: no such key. Did you mean 'weight'?" in refused(
        objective=[{"kind": "hard"}, {"kind": "forward_kl", "wieght": 1.0}]
    )
    also = [{"name": "a", "source": "x"}, {"name": "b", "source": "y", "limt": 3}]
    assert "evaluate.also[1].limt: no such key. Did you mean 'limit'?" in refused(evaluate__also=also)


def test_a_misspelt_key_of_a_plan_is_told_by_the_plans_own_keys() -> None:
    """Its kind has the name of one of its keys."""
    said = refused(plan={"kind": "tasks", "taks": [{"name": "a"}]})
    assert "plan.taks: no such key. Did you mean 'tasks'?" in said
    assert "plan.tasks: is required and not there" in said


def test_a_knob_of_another_term_is_no_knob_of_this_one() -> None:
    said = refused(objective=[{"kind": "hard", "temperature": 2.0}])
    assert "objective[0].temperature: no such key." in said
    assert "label_smoothing" in said


def test_a_key_that_resembles_nothing_lists_what_there_is() -> None:
    said = refused(gate__xyz=1)
    assert "Known here: min_retention, min_gain, " in said


def test_an_unknown_kind_says_what_was_meant() -> None:
    assert "objective[0].kind: unknown kind 'forwardkl'. Did you mean 'forward_kl'?" in refused(
        objective=[{"kind": "forwardkl"}]
    )


# ── wrong values ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_several_faults_come_in_one_message_a_line_each() -> None:
    said = refused(tsk=1, train__steps="many", data__split=1.5, seed=-1)
    assert said.startswith("my.yaml has 4 faults:\n")
    lines = said.splitlines()[1:]
    assert sorted(line.split(":")[0].strip() for line in lines) == [
        "data.split",
        "seed",
        "train.steps",
        "tsk",
    ]


@pytest.mark.parametrize(("field", "value", "wanted"), [
    ("student__from_teacher__layers", "two", "a whole number or a list"),
    ("data__split", "half", "a number"),
    ("data__train__where", {"a": [1]}, "text or a whole number or a number or true or false"),
    ("data__train__where", {"a": None}, "text"),
])  # fmt: skip
def test_a_field_with_two_forms_is_one_fault_and_not_one_a_form(field: str, value: Any, wanted: str) -> None:
    said = refused(**{field: value})
    assert "\n" not in said
    assert f"must be {wanted}" in said


def test_the_nearer_of_two_complaints_about_one_field_is_made() -> None:
    assert (
        refused(student__from_teacher__layers=0)
        == "my.yaml: student.from_teacher.layers: must be greater than 0, not 0."
    )
    assert "layers[0]: must be greater than or equal to 0, not -1" in refused(
        student__from_teacher__layers=[-1, 2]
    )


@pytest.mark.parametrize(("field", "value"), [
    ("train__steps", True), ("train__steps", "8"), ("train__steps", 8.5), ("train__learning_rate", "1e-4"),
    ("label__online", "no"), ("label__online", 1), ("seed", 1.5), ("name", 3), ("data__split", True),
    ("train__learning_rate", float("inf")), ("gate__min_retention", float("nan")),
])  # fmt: skip
def test_a_value_of_another_type_is_never_bent_until_it_fits(field: str, value: Any) -> None:
    assert f"{field.replace('__', '.')}: must be" in refused(**{field: value})


def test_whole_numbers_are_numbers() -> None:
    assert (
        parse_recipe(
            values(train__max_grad_norm=1, objective=[{"kind": "hard", "weight": 2}])
        ).train.max_grad_norm
        == 1.0
    )


@pytest.mark.parametrize(("changes", "said"), [
    ({"student": {}}, "student: needs exactly one of from_teacher, from_config and model, and has none"),
    ({"student__model": "x"}, "has from_teacher and model"),
    ({"student__sha256": "0" * 64}, "student: sha256 and revision pin a model, and none is named"),
    ({"student__from_teacher__layers": [3, 1]}, "student.from_teacher.layers: must be a rising list"),
    ({"student__from_teacher__layers": []}, "student.from_teacher.layers: must be a rising list"),
    ({"train__epochs": 1.0}, "train: give steps or epochs, not both"),
    ({"teacher__finetune": {}}, "teacher.finetune: only for task: classification"),
    ({"data__unlabelled": {"source": "x"}}, "data.unlabelled: nobody answers its prompts"),
    ({"gate__min_gain": 0.0, "evaluate__hard_only": False}, "gate.min_gain: needs the control"),
    ({"gate__min_gain": 0.0, "objective": [{"kind": "hard"}]}, "gate.min_gain: no term of the objective uses the teacher"),
    ({"objective": []}, "objective: must not be empty"),
    ({"objective": [{"kind": "forward_kl"}, {"kind": "forward_kl", "temperature": 2.0}]}, "objective: terms ask for temperatures"),
    ({"evaluate__also": [{"name": "a", "source": "x"}, {"name": "a", "source": "y"}]}, "evaluate.also: names must differ"),
    ({"evaluate__also": [{"name": "train", "source": "x"}]}, "evaluate.also: names must differ"),
    *(
        ({"evaluate__also": [{"name": name, "source": "x"}]}, f"the name {name} is kept for rows that are changed")
        for name in (*MADE, "year_by_teacher")
    ),
    ({"data__train__format": "labelled"}, "data.train.format: labelled does not fit task: causal_lm"),
    ({"data__train__sha256": "abc"}, "data.train.sha256: must be 64 hexadecimal digits"),
    ({"name": "a/b"}, "name: must match"),
])  # fmt: skip
def test_sections_that_contradict_each_other_are_refused(changes: dict[str, Any], said: str) -> None:
    assert said in refused(**changes)


# ── --set ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("change", "path", "value"), [
    ("train.learning_rate=1e-3", "train.learning_rate", 1e-3),
    ("train.steps= 7 ", "train.steps", 7),
    ("objective.1.weight=0.5", "objective.1.weight", 0.5),
    ("objective.0={kind: forward_kl, temperature: 3.0}", "objective.0.temperature", 3.0),
    ("gate.min_retention=0.9", "gate.min_retention", 0.9),
    ("data.train.where={stars: 5}", "data.train.where.stars", 5),
    ("data.train.columns.text=review", "data.train.columns.text", "review"),
    ("description=a=b", "description", "a=b"),
    ("description='# 1: the first'", "description", "# 1: the first"),
    ("student.from_teacher.layers=[0, 2]", "student.from_teacher.layers", [0, 2]),
    ("label.online=true", "label.online", True),
    ("licence=no", "licence", "no"),
])  # fmt: skip
def test_set_changes_a_field_wherever_it_is(tmp_path: Path, change: str, path: str, value: Any) -> None:
    found: Any = load_recipe(written(tmp_path), [change]).model_dump(mode="json")
    for step in path.split("."):
        found = found[int(step)] if isinstance(found, list) else found[step]
    assert found == value


@pytest.mark.parametrize("nothing", ["", "null", "~"])
def test_set_to_nothing_takes_a_value_back(tmp_path: Path, nothing: str) -> None:
    recipe = load_recipe(written(tmp_path), [f"train.steps={nothing}", "train.epochs=2.0"])
    assert recipe.train.steps is None
    assert recipe.train.epochs == 2.0


def test_later_changes_win_and_the_file_stays_as_it_was(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = path.read_text()
    assert load_recipe(path, ["train.steps=3", "train.steps=4"]).train.steps == 4
    assert path.read_text() == before


def test_set_of_a_field_that_an_alias_shares_changes_that_field_alone(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(
        path.read_text().replace(
            "train:\n    source: rows.jsonl", "train: &rows {source: rows.jsonl}\n  eval: *rows"
        )
    )
    recipe = load_recipe(path, ["data.train.limit=3"])
    assert recipe.data.eval is not None
    assert (recipe.data.train.limit, recipe.data.eval.limit) == (3, None)


@pytest.mark.parametrize("change", ["train.steps", "=3", "a..b=1", ".=1", ""])
def test_set_without_a_key_or_value_shows_how_to_write_it(tmp_path: Path, change: str) -> None:
    with pytest.raises(RecipeError, match="write it as section"):
        load_recipe(written(tmp_path), [change])


@pytest.mark.parametrize(
    "change",
    [
        "name.x=1",
        "name.x.y=1",
        "objective.7.weight=1",
        "objective.-1.weight=1",
        "objective.weight=1",
        "objective.²=1",
        "train.steps.x=1",
    ],
)
def test_set_below_what_is_no_section_is_refused(tmp_path: Path, change: str) -> None:
    with pytest.raises(RecipeError, match="to set"):
        load_recipe(written(tmp_path), [change])


def test_set_of_an_unknown_key_says_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no such key\. Did you mean 'learning_rate'"):
        load_recipe(written(tmp_path), ["train.learning_rat=1"])


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_paths_beside_the_recipe_are_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    recipe = load_recipe(written(tmp_path))
    assert recipe.data.train.source == str(tmp_path / "rows.jsonl")
    assert recipe.teacher.model == "teachers/one", "what is not there stays as it was written"


def test_files_that_are_no_recipe_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    (tmp_path / "list.yaml").write_text("- a")
    for path, said in (
        ("none.yaml", "no such recipe"),
        ("", "is a folder"),
        ("latin.yaml", "UTF-8"),
        ("list.yaml", "mapping of sections"),
    ):
        with pytest.raises(RecipeError, match=said):
            load_recipe(tmp_path / path)


# ── the model itself ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recipe_never_changes_once_read() -> None:
    recipe = parse_recipe(values())
    for section, field in (
        (recipe, "seed"),
        (recipe.train, "steps"),
        (recipe.objective[0], "weight"),
        (recipe.data.train, "limit"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, field, 1)


def test_a_term_of_weight_0_asks_for_no_teacher_no_control_and_no_kept_targets() -> None:
    hard, none = {"kind": "hard"}, {"weight": 0.0}
    left_out = [{"kind": "forward_kl", "temperature": 3.0}, {"kind": "hidden"}, {"kind": "policy_gradient"}]
    recipe = parse_recipe(values(objective=[{**term, **none} for term in left_out] + [hard]))
    assert not recipe.has_teacher and not recipe.has_control and recipe.temperature is None
    assert [term.kind for term in recipe.terms] == ["hard"]
    assert len(recipe.objective) == 4, "what was written stays"
    recipe = parse_recipe(values(objective=[{**left_out[0], **none}, {"kind": "forward_kl"}]))
    assert recipe.has_teacher and recipe.temperature == 1.0, "of the term that takes part"


def test_an_objective_in_which_no_term_weighs_anything_is_refused() -> None:
    said = refused(objective=[{"kind": "hard", "weight": 0.0}, {"kind": "forward_kl", "weight": 0}])
    assert (
        "objective: every term has weight 0, so there is nothing to learn; give one of them a weight above 0"
        in said
    )
    growing = {"kind": "hard", "weight": {"start": 0.0, "end": 1.0}}
    assert parse_recipe(values(objective=[growing])).terms


def test_the_schema_is_a_valid_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(Recipe.model_json_schema())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_the_schema_accepts_every_shipped_recipe(path: Path) -> None:
    plain = json.loads(json.dumps(yaml.load(path.read_text(), Loader=_floats_as_we_read_them())))
    jsonschema.validate(plain, Recipe.model_json_schema())


def test_the_schema_refuses_what_the_loader_refuses() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values(train__learning_rat=1), Recipe.model_json_schema())


@pytest.mark.parametrize("changes", [
    {}, {"objective": [{"kind": "hard", "label_smoothing": 0.1}]}, {"train__learning_rate": 1e-6},
    {"student": {"from_config": {"config": {"hidden_size": 8}, "embeddings": "random"}}},
    {"task": "classification", "teacher__finetune": {}, "data__train__where": {"a": True, "b": 1, "c": "x", "d": 0.5}},
    {"name": "no", "licence": "1e-4", "description": "yes: # no\nnull"},
])  # fmt: skip
def test_recipe_text_is_read_back_as_the_same_recipe(tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = parse_recipe(values(**changes))
    (tmp_path / "again.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_recipe_json_is_read_back_as_the_same_recipe() -> None:
    recipe = parse_recipe(values(student__from_teacher__layers=[0, 3]))
    assert Recipe.model_validate(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe


def test_recipe_text_holds_what_its_author_set_and_no_defaults() -> None:
    assert "weight_decay" not in recipe_text(parse_recipe(values()))


def test_from_python_too_unknown_names_are_refused() -> None:
    with pytest.raises(ValidationError):
        FromTeacher(layers=2, bye="every_nth")  # type: ignore[call-arg]


def _floats_as_we_read_them() -> type[yaml.SafeLoader]:
    from stillhouse.recipe.yaml import _Loader

    return _Loader


# ── what the terms can be compared with ─────────────────────────────────────────────────────────────────────────────

ALIKE = {
    "layers without a model beside": (
        {"objective": [{"kind": "hidden"}]}, r"hidden compares layers.*set label.online: true",
    ),
    "a temperature that moves": (
        {"objective": [{"kind": "js", "temperature": {"start": 1, "end": 2}}]},
        r"js changes its temperature.*set label.online: true",
    ),
    "draws for another divergence": (
        {"objective": [{"kind": "reverse_kl"}], "label__samples": 12},
        r"reverse_kl cannot be estimated from sampled targets",
    ),
    "two forms of soft targets": ({"label__samples": 12, "label__top_k": 16}, r"top_k: 16 and samples: 12.*remove one"),
    "few outcomes for a divergence that needs all": (
        {"objective": [{"kind": "alpha_beta"}]}, r"alpha_beta needs every outcome's probability.*label.online: true",
    ),
    "a knob out of its range": ({"objective": [{"kind": "js", "beta": 2}]}, r"objective\[0\]\.beta: must be less than 1"),
    "a misspelt knob": ({"objective": [{"kind": "js", "bta": 0.5}]}, r"objective\[0\]\.bta.*Did you mean 'beta'"),
    "a schedule without an end": ({"objective": [{"kind": "hard", "weight": {"start": 1}}]}, r"weight\.end"),
    "a temperature that reaches 0": (
        {"objective": [{"kind": "js", "temperature": {"start": 2, "end": 0}}], "label__online": True}, r"must stay above 0",
    ),
    "no exponents": ({"objective": [{"kind": "alpha_beta", "alpha": 0, "beta": 0}]}, r"must not both be 0"),
    "a share above 1": (
        {"rollouts": {"share": {"start": 0, "end": 50}}, "label__online": True}, r"stay between 0 and 1",
    ),
    "a share that follows a value which a rationale's weight moves": (
        {
            "rollouts": {"share": {"start": 0, "step": 0.1}}, "label__online": True, "data__validation": 0.1,
            "train__rationale_weight": {"start": 1, "end": 0},
        },
        r"the schedule of train.rationale_weight changes by itself; use a fixed weight",
    ),
    "no layers": ({"objective": [{"kind": "hidden", "layers": {}}], "label__online": True}, r"layers"),
    "rollouts nobody judges": ({"rollouts": {}}, r"nobody has labelled.*set label.online: true"),
    "rollouts whose judge weighs nothing": (
        {"rollouts": {}, "label__online": True, "objective": [{"kind": "hard"}, {"kind": "forward_kl", "weight": 0}]},
        r"^(?!.*label.online).*rollouts: no term uses the teacher.*a weight above 0",
    ),
    "a policy gradient without rollouts": (
        {"objective": [{"kind": "policy_gradient"}], "label__online": True}, r"policy_gradient.*add rollouts",
    ),
    "a biased policy gradient": (
        {"objective": [{"kind": "policy_gradient"}], "label__online": True, "rollouts": {"top_p": 0.9}},
        r"policy_gradient is biased by rollouts.top_p",
    ),
    "made rows for a language model": ({"data__augment": {}}, r"data.augment: only a classifier"),
    "a target that is no function": ({"objective": [{"kind": "custom", "target": "here"}]}, r"objective\[0\]\.target: must match"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALIKE)
def test_terms_that_do_not_fit_their_targets_are_refused_with_the_remedy(name: str) -> None:
    changes, message = ALIKE[name]
    assert re.search(message, refused(**changes), re.DOTALL)


def test_terms_of_weight_0_are_listed_only_where_a_place_in_the_list_names_others() -> None:
    """Elsewhere to add or drop one must not train anew what has not changed."""
    soft, none = {"kind": "forward_kl"}, {"kind": "hard", "weight": 0}
    one = parse_recipe(values(objective=[none, soft]))
    assert one.listed_terms == one.terms == one.objective[1:]
    two = parse_recipe(values(objective=[none, soft, soft]))
    assert two.listed_terms == two.objective and len(two.terms) == 2


def test_every_kind_of_term_has_a_function_in_python_and_the_other_way_round() -> None:
    from typing import get_args

    from stillhouse import objectives
    from stillhouse.recipe import Term

    kinds = {one.model_fields["kind"].default for one in get_args(get_args(Term)[0])}
    assert kinds == set(objectives.__all__) - {"schedule", "rollouts", "adaptive_share"}
    for kind in kinds - {"custom"}:
        assert getattr(objectives, kind)(0.5).kind == kind


def test_layer_maps_of_numbers_and_schedules_survive_being_written_and_read_again() -> None:
    terms = [
        {"kind": "hidden", "layers": {1: 4, 2: 8}},
        {"kind": "forward_kl", "weight": {"start": 0.0, "end": 1.0, "curve": "cosine"}},
    ]
    recipe = parse_recipe(values(objective=terms, label__online=True), "my.yaml")
    again = parse_recipe(json.loads(recipe.model_dump_json()), "my.yaml")
    assert again == recipe
    assert again.objective[0].layers == {1: 4, 2: 8}


def test_a_panel_is_refused_where_only_its_first_member_would_be_trimmed() -> None:
    panel = {"panel": [{"model": "a"}, {"model": "b"}]}
    assert "student.vocabulary: trims one teacher" in refused(teacher=panel, student__vocabulary="data")


def test_a_trimmed_vocabulary_is_refused_where_a_later_run_would_meet_the_whole_one() -> None:
    said = refused(student__vocabulary="data", plan={"kind": "generations", "count": 2})
    assert "student.vocabulary" in said and "generations" in said
