"""A recipe whose teacher is behind an API: what does not go together is said in a sentence, before anything is paid."""

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from stillhouse.data.alike import refuse_alike
from stillhouse.errors import RecipeError
from stillhouse.recipe import Recipe, parse_recipe
from stillhouse.recipe.api import OF_FEW
from stillhouse.recipe.text import recipe_text
from stillhouse.recipe.yaml import parse_yaml

API = {"base_url": "http://localhost:8000/v1", "model": "big"}


def values(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": "box",
        "task": "classification",
        "teacher": {"api": API},
        "student": {"model": "a/b"},
        "data": {"train": {"source": "rows.csv"}},
        "objective": [{"kind": "forward_kl"}],
    }
    return {**plain, **changes}


def texts(**changes: Any) -> dict[str, Any]:
    return values(**{"task": "causal_lm", "objective": [{"kind": "hard"}], **changes})


def targets(**changes: Any) -> dict[str, Any]:
    """An encoder–decoder that learns an API's answers."""
    return texts(**{"task": "seq2seq", **changes})


def with_api(**more: Any) -> dict[str, Any]:
    return {"api": {**API, **more}}


def told(*terms: dict[str, Any], label: dict[str, Any] | None = None, **api: Any) -> dict[str, Any]:
    """A language model that learns from an API's log-probabilities."""
    more = {} if label is None else {"label": label}
    return values(task="causal_lm", objective=list(terms), teacher=with_api(top_logprobs=5, **api), **more)


def fault(plain: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as error:
        parse_recipe(plain)
    return str(error.value)


def test_all_tasks_that_an_api_can_teach_are_read_and_written_back() -> None:
    for plain in (
        values(),
        texts(),
        targets(teacher=with_api(prompt="Shorten: {text}", system="You are brief.")),
        values(teacher=with_api(labels=["a", "b"], price={"input": 1.5, "output": 6.0}, max_cost=2.0)),
    ):
        recipe = parse_recipe(plain)
        assert Recipe.model_validate(parse_yaml(recipe_text(recipe), "again")) == recipe
        assert recipe.has_teacher


def test_what_has_no_field_of_its_own_may_still_be_asked_for() -> None:
    """`max_completion_tokens` is the only limit that some models know; of text alone any distribution will do."""
    for plain in (
        texts(teacher=with_api(extra_body={"max_completion_tokens": 8000, "top_p": 0.9})),
        told({"kind": "forward_kl"}, extra_body={"max_completion_tokens": 8000, "reasoning_effort": "low"}),
    ):
        assert parse_recipe(plain).teacher.api is not None


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        (values(teacher={}), "teacher.model: is required and not there; add it (or api:"),
        (values(teacher={"model": "a/b", "api": API}), "give either model or api"),
        (values(teacher={"api": API, "finetune": {}}), "give either finetune or api"),
        (values(teacher={"api": {"model": "big"}}), "needs base_url, or answers"),
        (values(teacher=with_api(base_url="localhost:8000")), "must begin with http:// or https://"),
        (values(teacher=with_api(base_url="https://me:secret@host/v1")), "must hold no password"),
        (values(teacher=with_api(api_key_env="sk-abc.def")), "teacher.api.api_key_env"),
        (values(teacher=with_api(max_cost=1.0)), "not known without a price"),
        (values(teacher=with_api(endpoint="completions", system="x")), "only the chat endpoint has system messages"),
        (values(teacher=with_api(extra_body={"messages": []})), "messages is set by the run itself"),
        (values(teacher=with_api(extra_body={"temperature": 0.3})), "temperature is what the field temperature is for"),
        (texts(teacher=with_api(extra_body={"max_tokens": 9})), "max_tokens is what the field max_tokens is for"),
        (texts(teacher=with_api(extra_body={"logprobs": True})), "logprobs is what the field top_logprobs is for"),
        (texts(teacher=with_api(extra_body={"top_logprobs": 5})), "the field top_logprobs is for; use that"),
        (values(teacher=with_api(prompt="What is it?")), "teacher.api.prompt"),
        (values(teacher=with_api(max_tokns=3)), "Did you mean 'max_tokens'?"),
        (values(student={"from_teacher": {"layers": 2}}), "an API has no layers to keep"),
        (values(student={"from_config": {"config": {"hidden_size": 8}}}), "an API lends no tokenizer; name a model"),
        (values(student={"model": "a/b", "tokenizer": "c/d"}), "only from_config needs one"),
        (values(label={"online": True}), "label.online: a teacher behind an API cannot run beside"),
        (values(label={"samples": 3}), "label.samples"),
        (values(objective=[{"kind": "hard"}]), "no term uses the teacher"),
        (values(data={"train": {"source": "x.csv"}, "augment": {}}), "data.augment"),
        (texts(data={"train": {"source": "x.jsonl"}, "filter": {"min_score": 0.5}, "judge": {"model": "a/b"}}), "data.filter.min_score: scores rows before"),
        (values(data={"train": {"source": "x.csv"}, "filter": {"min_confidence": 0.5}}), "data.filter.min_confidence: the teacher's answers come without probabilities"),
        (texts(rollouts={}), "rollouts: a teacher behind an API"),
        (texts(teacher=with_api(labels=["a"])), "teacher.api.labels: only for task: classification"),
        (texts(teacher=with_api(prompt="So: {text}")), "teacher.api.prompt: only for task: classification and seq2seq"),
        (targets(objective=[{"kind": "hard"}, {"kind": "forward_kl"}]), "objective: forward_kl is not for an encoder–decoder whose teacher is behind an API"),
        (targets(objective=[{"kind": "forward_kl"}], teacher=with_api(top_logprobs=5)), "use objective: [{kind: hard}]"),
        (targets(objective=[{"kind": "deeper_layers"}]), "nothing learns the answers of teacher.api; add {kind: hard}"),
        (targets(teacher=with_api(labels=["a"])), "teacher.api.labels: only for task: classification"),
        (targets(teacher=with_api(prompt="{text} is {labels}")), "teacher.api.prompt: {labels} is filled in for task: classification"),
        (targets(student={"from_teacher": {"layers": 2}}), "an API has no layers to keep"),
        (targets(student={"from_config": {"config": {"d_ff": 8}}}), "an API lends no tokenizer; name a model"),
        (targets(teacher={"api": API, "finetune": {}}), "give either finetune or api"),
        (targets(label={"online": True}), "label.online: a teacher behind an API cannot run beside"),
        (targets(data={"train": {"source": "x.jsonl"}, "generate": [{"kind": "answers"}]}), "data.generate: a teacher behind an API writes the target"),
        (targets(data={"train": {"source": "x.jsonl"}, "unlabelled": {"source": "y.jsonl"}}), "data.unlabelled: a teacher behind an API answers sources"),
        (targets(data={"train": {"source": "x.jsonl"}, "writer": {"model": "a/b"}}), "data.writer: an encoder–decoder's targets"),
        (targets(evaluate={"perturb": ["typos"]}), "evaluate.perturb: compares with the teacher row by row"),
        (targets(plan={"kind": "rounds", "by": "uncertainty", "pool": {"source": "z.jsonl"}, "answers": {"temperature": 0}}), "plan.answers: a teacher behind an API writes the target"),
        (targets(plan={"kind": "generations"}), "the later teachers of generations are students"),
        (values(task="causal_lm"), "use objective: [{kind: hard}]"),
        (values(task="causal_lm"), "add teacher.api.top_logprobs if the server gives them"),
        (told({"kind": "adaptive_kl"}), "objective: adaptive_kl needs more than the most probable tokens"),
        (told({"kind": "custom", "target": "a:b"}), "objective: custom needs more"),
        (told({"kind": "cross_tokenizer"}), "objective: cross_tokenizer needs more"),
        (told({"kind": "hidden"}), "objective: hidden needs more"),
        (told({"kind": "forward_kl", "temperature": 2.0}), "set its temperature: 1"),
        (told({"kind": "forward_kl"}, label={"top_k": "all"}), "label.top_k: an API tells teacher.api.top_logprobs"),
        (told({"kind": "forward_kl"}, temperature=0.7), "teacher.api.temperature: some servers"),
        (told({"kind": "forward_kl"}, extra_body={"top_p": 0.5}), "teacher.api.extra_body: with top_p some servers"),
        (told({"kind": "forward_kl"}, extra_body={"logit_bias": {"1": 5}}), "with logit_bias some servers"),
        (told({"kind": "forward_kl"}, temperature=None), "teacher.api.temperature: some servers"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_said(plain: dict[str, Any], says: str) -> None:
    said = fault(plain)
    assert says in said
    assert "\n" not in said


@pytest.mark.parametrize("kind", OF_FEW)
def test_terms_that_can_compare_with_a_tail_take_an_apis_log_probabilities(kind: str) -> None:
    recipe = parse_recipe(told({"kind": kind}, {"kind": "hard"}, temperature=1.0, label={"top_k": 3}))
    assert recipe.temperature == 1.0 and recipe.has_control


def test_a_tokenizer_of_its_own_is_for_teachers_behind_an_api_alone() -> None:
    student = {"tokenizer": "c/d", "from_config": {"config": {"hidden_size": 8}}}
    assert parse_recipe(values(student=student)).student.tokenizer == "c/d"
    said = fault(values(student=student, teacher={"model": "a/b"}))
    assert "the student reads with its teacher's tokenizer" in said


def test_the_schema_says_nothing_of_keys_themselves() -> None:
    """A recipe is published with its student; it has room for the name of a variable, and none for a key."""
    fields = Recipe.model_json_schema()["$defs"]["Api"]["properties"]
    assert {name for name in fields if "key" in name} == {"api_key_env"}


def panel(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """A recipe whose panel has two members behind an API."""
    members = [{"name": name, "api": {**API, **own}} for name, own in (("a", first), ("b", second))]
    return values(teacher={"panel": members})


OURS = resources.files("stillhouse.data").joinpath("prompts/label.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"max_tokens": 16}),
        ({}, {"prompt": OURS.strip()}),
        ({}, {"prompt": "ours.txt"}),
        ({"labels": ["x", "y"]}, {"labels": {"y": "y", "x": "x"}}),
        ({"labels": ["x", "y"]}, {}),
        ({"prompt": "Which? {text}", "labels": {"x": "1", "y": "2"}}, {"prompt": "Which? {text}", "labels": {"x": "2", "y": "1"}}),
        ({"extra_body": {"seed": 1, "user": "me"}}, {"extra_body": {"user": "me", "seed": 1}}),
        ({"max_tokens": 8}, {"extra_body": {}, "max_tokens": 8, "concurrency": 2, "timeout": 9.0}),
    ],
)  # fmt: skip
def test_two_members_that_ask_the_very_same_are_one_however_they_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """One answer would count twice."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours.txt").write_text(OURS, encoding="utf-8")
    for pair in ((first, second), (second, first)):
        with pytest.raises(
            RecipeError, match=r"panel\[1\].api: asks the same model the same as teacher.panel\[0\].api"
        ):
            refuse_alike(parse_recipe(panel(*pair)).teacher)


@pytest.mark.parametrize(
    "other",
    [
        {"model": "other"},
        {"base_url": "http://localhost:9/v1"},
        {"max_tokens": 17},
        {"prompt": "Which of {labels} is it? {text}"},
        {"prompt": "not-there.txt"},
        {"system": "Be brief."},
        {"endpoint": "completions"},
        {"top_logprobs": 3},
        {"temperature": 1.0},
        {"extra_body": {"seed": 1}},
        {"labels": {"x": "1", "y": "2"}},
    ],
)
def test_two_members_that_ask_otherwise_are_two(other: dict[str, Any]) -> None:
    refuse_alike(parse_recipe(panel({"labels": ["x", "y"]}, {"labels": ["x", "y"], **other})).teacher)
