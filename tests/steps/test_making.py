"""What `student:` of a recipe comes to: shapes tried, a trimmed teacher, weights copied where they fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, PretrainedConfig

import tiny
from families import GROUPED, family, logits
from stillhouse.errors import DataError, RecipeError
from stillhouse.files import read_json
from stillhouse.models.load import load_model, load_tokenizer, parameters
from stillhouse.models.shrink.fresh import copy_layers, from_config
from stillhouse.progress import Silent
from stillhouse.recipe import FromTeacher, Search, Student, Target, parse_recipe
from stillhouse.runner import run_stages
from stillhouse.steps import search
from stillhouse.steps.search import found_shape
from stillhouse.steps.shrinking import Shrinking
from stillhouse.steps.students import set_dropout
from stillhouse.tasks import make_task


def making(folder: Path, wanted: Student, rows: int = 40) -> Shrinking:
    teacher = tiny.save_language_model(folder / "teacher")
    task = make_task("causal_lm", load_tokenizer(teacher), 48)
    examples, _ = task.encode([{"text": text, "id": str(n)} for n, text in enumerate(tiny.sentences(rows))])
    return Shrinking(wanted, task, teacher, examples, Silent())


def test_search_goes_on_with_the_better_half_and_ends_with_the_best(tmp_path: Path) -> None:
    wanted = Student(
        target=Target(parameters="20K"), search=Search(candidates=4, steps=2, batch_size=2, rows=4)
    )
    made = making(tmp_path, wanted)
    assert wanted.search is not None
    shape = found_shape(made, wanted.search, 0, tmp_path / "search")
    tried = made.how["search"]
    assert [len(one["losses"]) for one in tried].count(2) == 2
    assert len(tried) == 4
    first = sorted(one["losses"][0] for one in tried)
    assert sorted(one["losses"][0] for one in tried if len(one["losses"]) == 2) == first[:2]
    best = min((one for one in tried if len(one["losses"]) == 2), key=lambda one: one["losses"][1])
    assert {name: best[name] for name in shape.said()} == shape.said()
    for one in tried:
        assert 0.95 * 20_000 <= one["parameters"] <= 20_000
    student, how = made.student(shape)
    assert parameters(student) == best["parameters"]
    assert how["search"] == tried
    again = making(tmp_path, wanted)
    assert found_shape(again, wanted.search, 0, tmp_path / "again") == shape
    assert again.how["search"] == tried, "the same each time"


class Cut(Exception):
    """The power fails."""


@pytest.mark.parametrize("moment", ["learn", "keep", "loss"])
def test_a_search_cut_off_anywhere_ends_with_the_same_shape_and_trains_no_candidate_twice(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Student(
        target=Target(parameters="20K"), search=Search(candidates=3, steps=2, batch_size=2, rows=4)
    )
    assert wanted.search is not None
    whole = making(tmp_path, wanted)
    shape = found_shape(whole, wanted.search, 0, tmp_path / "whole")
    where: Any = search._Learners if moment == "keep" else search._Trial
    learned: list[tuple[int, int]] = []
    learn, original = search._Trial.learn, getattr(where, moment)
    calls, cut_at = 0, 1

    def cut(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == cut_at:
            raise Cut
        return original(*given)

    def counted(self: Any, student: Any, optimizer: Any, begin: int, end: int) -> None:
        learned.append((begin, end))
        learn(self, student, optimizer, begin, end)

    monkeypatch.setattr(search._Trial, "learn", counted)
    if moment == "learn":
        original = counted
    monkeypatch.setattr(where, moment, cut)
    found = None
    while found is None:
        made, calls = making(tmp_path, wanted), 0
        try:
            found = found_shape(made, wanted.search, 0, tmp_path / "cut")
        except Cut:
            cut_at += 1  # one call further each time, so that it gets to its end
    assert found == shape
    assert made.how["search"] == whole.how["search"]
    if moment != "keep":
        assert sorted(learned) == [(0, 2), (0, 2), (0, 2), (2, 6), (2, 6)]


def test_shapes_that_all_diverge_are_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    wanted = Student(
        target=Target(parameters="20K"),
        search=Search(candidates=2, steps=2, batch_size=2, rows=4, learning_rate=1e30),
    )
    made = making(tmp_path, wanted)
    assert wanted.search is not None
    with pytest.raises(RecipeError, match=r"student\.search\.learning_rate: no shape"):
        found_shape(made, wanted.search, 0, tmp_path / "search")


def test_search_that_keeps_every_row_aside_is_refused(tmp_path: Path) -> None:
    wanted = Student(target=Target(parameters="20K"), search=Search(rows=64))
    with pytest.raises(DataError, match=r"student\.search\.rows: 64 rows kept aside leave"):
        found_shape(making(tmp_path, wanted), Search(rows=64), 0, tmp_path / "search")


@pytest.mark.parametrize("by", ["block_influence", "perplexity", "similarity", "every_nth"])
def test_every_way_to_choose_layers_keeps_as_many_as_asked_for(by: str, tmp_path: Path) -> None:
    made = making(tmp_path, Student(from_teacher=FromTeacher(layers=2, by=by, rows=4)))
    student, how = made.student(made.shapes()[0])
    assert len(how["layers"]) == student.config.num_hidden_layers == 2
    assert how["of"]["layers"] == 4


def test_a_student_of_a_trimmed_vocabulary_and_its_teacher_read_the_same_fewer_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurry: None
) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    values = tiny.language_recipe(
        tmp_path, student={"target": {"parameters": "20K"}, "vocabulary": 320}, label={"online": True}
    )
    recipe = parse_recipe(values)
    run_stages(recipe, tmp_path / "run", Silent(), until="initial")
    facts: dict[str, Any] = read_json(tmp_path / "run" / "prepare" / "DONE.json")["result"]
    kept = facts["teacher"]["vocabulary"]["kept"]
    student = tmp_path / "run" / "initial" / "model"
    assert 300 < kept <= 320
    for folder in (Path(facts["teacher"]["folder"]), student):
        model = load_model(folder, "AutoModelForCausalLM")
        assert model.get_input_embeddings().weight.shape[0] == kept == len(load_tokenizer(folder))
    assert 19_000 <= parameters(model) <= 20_000
    tokenizer = load_tokenizer(student)
    assert tokenizer.decode(tokenizer("never seen: Ærøskøbing 7")["input_ids"]) == "never seen: Ærøskøbing 7"


def test_copied_layers_are_the_teachers_and_what_does_not_fit_stays_random() -> None:
    teacher = family("llama")
    config = LlamaConfig(**{**GROUPED, "num_hidden_layers": 2, "intermediate_size": 24})
    student = from_config(config, "AutoModelForCausalLM", 1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    assert copy_layers(student, teacher) == {"tensors": 2 * 6 + 1, "of": 2 * 9 + 3}
    for mine, theirs in zip(
        student.model.layers, (teacher.model.layers[0], teacher.model.layers[3]), strict=True
    ):
        assert torch.equal(mine.self_attn.q_proj.weight, theirs.self_attn.q_proj.weight)
        assert mine.mlp.down_proj.weight.shape != theirs.mlp.down_proj.weight.shape
    for name in ("model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(student.state_dict()[name], before[name])
    narrow = from_config(LlamaConfig(**{**GROUPED, "hidden_size": 16}), "AutoModelForCausalLM", 1)
    with pytest.raises(RecipeError, match="no weight of the teacher's layers has the shape"):
        copy_layers(narrow, teacher)


@pytest.mark.parametrize("name", ["bert", "distilbert", "t5", "bart", "llama"])
def test_a_students_dropout_is_what_the_recipe_says_once_it_is_loaded_and_trained(
    name: str, tmp_path: Path
) -> None:
    """With 0 two passes in training mode agree to the last bit; with a half they do not."""
    for share in (0.0, 0.5):
        model = family(name)
        set_dropout(model.config, share)
        model.save_pretrained(tmp_path / f"{share}")
        again = type(model).from_pretrained(tmp_path / f"{share}").train()
        again.set_attn_implementation("eager")
        assert torch.equal(logits(again), logits(again)) == (share == 0.0)


def test_a_family_that_drops_nothing_says_so() -> None:
    with pytest.raises(RecipeError, match=r"student\.dropout: .* knows no dropout"):
        set_dropout(PretrainedConfig(), 0.1)
