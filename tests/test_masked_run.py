"""Whole runs of masked language models, what is refused before one, and the recipe that `init` writes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import tiny
from stillhouse.data.encode import read_examples
from stillhouse.data.masking import unmasked
from stillhouse.models.load import load_tokenizer
from stillhouse.tasks import make_task
from typed import hurried, stillhouse, write_recipe

ONLINE = {"online": True, "batch_size": 8}
LAYERS = [{"kind": "relations", "weight": 0.5}, {"kind": "hidden", "weight": 0.5}]

WITH_HARD = [*LAYERS, {"kind": "hard"}]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and text."""
    place = tmp_path_factory.mktemp("masked")
    tiny.masked_recipe(place)
    tiny.save_encoder(place / "bare", head=False)
    tiny.save_language_model(place / "llama", layers=1)
    tiny.save_classifier(place / "classifier", layers=1)
    (place / "chat.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    return place


def ran(inputs: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    recipe = write_recipe(folder / "r.yaml", tiny.masked_recipe(inputs, **changes))
    with hurried():
        said = stillhouse("run", recipe, "--folder", folder / "run")
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads((folder / "run" / "results.json").read_text())
    return found


def test_an_encoder_is_distilled_from_kept_targets_of_one_masked_text(
    inputs: Path, tmp_path: Path, python_reference: None
) -> None:
    found = ran(inputs, tmp_path)
    assert found["metric"] == "bits_per_token"
    for model in (found["teacher"], found["student"], found["controls"]["hard_only"]):
        metrics = model["metrics"]["eval"]
        assert {"perplexity", "bits_per_token", "teacher_agreement", "teacher_kl"} <= set(metrics)
        assert metrics["perplexity"]["value"] == pytest.approx(
            2 ** metrics["bits_per_token"]["value"], rel=1e-6
        )
        assert model["throughput"]["rows"] > 0
    assert found["teacher"]["metrics"]["eval"]["teacher_kl"]["value"] == pytest.approx(0, abs=1e-9)
    assert "pseudo-perplexity" in (tmp_path / "run" / "report.html").read_text()
    assert "AutoModelForMaskedLM" in (card := (tmp_path / "run" / "student" / "README.md").read_text())
    assert "fill-mask" in card
    elsewhere = found["student"]["metrics"]["python_reference"]["bits_per_token"]["value"]
    assert found["datasets"]["python_reference"]["rows"] == found["datasets"]["eval"]["rows"] == 12
    assert elsewhere != found["student"]["metrics"]["eval"]["bits_per_token"]["value"]
    assert {"eval", "python_reference"} == set(found["retentions"]) == set(found["gains"])
    assert found["licence"]["measured"] == {"python_reference": "PSF-2.0"}
    assert "python\\_reference (PSF-2.0)" in card and "Other domains" not in card

    kept = tmp_path / "run" / "prepare"
    task = make_task("masked_lm", load_tokenizer(inputs / "encoder"), 32)
    train, held = (read_examples(kept / f"{name}.parquet") for name in ("train", "eval"))
    assert [task.drawn(example, 0, 0) for example in train] == train
    assert [task.drawn(example, 0, 0) for example in held] == held
    label = json.loads((tmp_path / "run" / "label" / "DONE.json").read_text())["result"]
    assert label["examples"] == len(train)


def test_the_seed_hides_other_training_tokens_and_the_same_ones_of_held_out_text(
    inputs: Path, tmp_path: Path
) -> None:
    held = tiny.text_file(tmp_path / "held.jsonl", rows=12, seed=5)
    sets: list[dict[str, Any]] = []
    for seed in (0, 1):
        data = {
            "train": {"source": str(inputs / "text.jsonl")},
            "eval": {"source": str(held)},
            "max_length": 32,
        }
        recipe = write_recipe(
            tmp_path / f"{seed}.yaml", tiny.masked_recipe(inputs, seed=seed, data=data, evaluate={})
        )
        assert stillhouse("run", recipe, "--folder", tmp_path / str(seed), "--until", "prepare").code == 0
        kept = tmp_path / str(seed) / "prepare"
        sets.append({name: read_examples(kept / f"{name}.parquet") for name in ("train", "eval")})
    one, other = ({tuple(unmasked(each)): each.key for each in some["eval"]} for some in sets)
    assert len(one.keys() & other.keys()) >= 10
    assert all(one[text] == other[text] for text in one.keys() & other.keys())
    mine, theirs = ({tuple(unmasked(one)): one.key for one in some["train"]} for some in sets)
    assert mine.keys() == theirs.keys()
    assert sum(mine[text] == theirs[text] for text in mine) < len(mine) / 10


def test_a_teacher_without_a_head_teaches_by_its_layers_and_is_not_asked_for_words(
    inputs: Path, tmp_path: Path
) -> None:
    bare = {"model": str(inputs / "bare"), "dtype": "float32"}
    found = ran(inputs, tmp_path, teacher=bare, label=ONLINE, objective=LAYERS)
    assert found["retention"]["value"] is None
    assert "no masked-language-model head" in found["retention"]["note"]
    assert found["teacher"]["metrics"] == {"eval": {}}
    assert "teacher_kl" not in found["student"]["metrics"]["eval"]
    assert "no masked-language-model head" in (tmp_path / "run" / "report.html").read_text()


BARE = {"teacher.model": "bare"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (BARE, "teacher.model: .*bare is a BertModel, which has no trained masked-language-model head"),
    ({"teacher.model": "classifier"}, "is a BertForSequenceClassification, which has no trained"),
    ({"teacher.model": "llama"}, "is a LlamaForCausalLM, which reads from left to right"),
    (
        {**BARE, "objective": LAYERS, "label": ONLINE, "gate": {"min_retention": 0.9}},
        "gate.min_retention: teacher.model, a BertModel, says nothing",
    ),
    (
        {"student.model": "bare", "student.from_teacher": None, "student.adapter": {"rank": 2}},
        "student.adapter: student.model, a BertModel, has no masked-language-model head",
    ),
    (
        {**BARE, "objective": LAYERS, "label": ONLINE, "student.adapter": {"rank": 2}},
        "student.adapter: teacher.model, a BertModel, has no masked-language-model head",
    ),
    *(
        ({**BARE, "objective": LAYERS, "label": ONLINE, "plan": plan}, f"plan.kind: {plan['kind']} go on from students, whose heads")
        for plan in (
            {"kind": "assistants"}, {"kind": "generations"},
            {"kind": "rounds", "pool": {"source": "text.jsonl"}, "by": "uncertainty"},
        )
    ),
    (
        {"objective": WITH_HARD, "label": ONLINE, "plan": {"kind": "rounds", "pool": {"source": "text.jsonl"}}},
        "plan.by: divergence looks at what the teacher says",
    ),
    (
        {"objective": LAYERS, "label": ONLINE, "train.early_stopping": {"every": 2}},
        "train.early_stopping: goes by what the student says of hidden tokens",
    ),
    (
        {"objective": WITH_HARD, "label": ONLINE, "data.filter": {"min_confidence": 0.1}},
        "data.filter.min_confidence: an objective about layers alone does not ask",
    ),
    ({"data.max_length": 65}, "data.max_length: teacher.model reads 64 tokens at most"),
    ({"objective": LAYERS}, "objective: relations compares layers, .* label.online: true"),
    ({"objective": [{"kind": "deeper_layers"}]}, "objective: deeper_layers is for what is read from left to right"),
    ({"objective": [{"kind": "cross_tokenizer"}]}, "objective: cross_tokenizer is for what is read"),
    ({"teacher.finetune": {"epochs": 1}}, "teacher.finetune: only for task: classification"),
    ({"student.vocabulary": "data"}, "student.vocabulary: is not for task: masked_lm"),
    ({"rollouts": {"share": 0.5}, "label": ONLINE}, "rollouts: only a language model writes"),
    ({"data.unlabelled": {"source": "text.jsonl"}}, "data.unlabelled: task: masked_lm reads plain text"),
    ({"data.train.source": "chat.jsonl"}, "do not look like text"),
    ({"data.train.format": "messages"}, "data.train.format: messages does not fit task: masked_lm"),
    ({"evaluate.perturb": ["typos"]}, "evaluate.perturb: other tokens are hidden in a changed text"),
    ({"evaluate.answers": {}}, "evaluate.answers: only a language model writes"),
    ({"evaluate.baselines": ["majority"]}, "evaluate.baselines: majority chooses labels"),
    ({"evaluate.memorisation": {}}, "evaluate.memorisation: only a language model"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), REFUSED, ids=[said[:40] for _, said in REFUSED])
def test_what_cannot_work_is_refused_in_a_sentence_before_anything_is_loaded(
    inputs: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    values: dict[str, Any] = json.loads(json.dumps(tiny.masked_recipe(inputs)))
    for path, value in changes.items():
        place, (*steps, last) = values, path.split(".")
        for step in steps:
            place = place.setdefault(step, {})
        named = path in ("teacher.model", "student.model", "data.train.source")
        place[last] = str(inputs / value) if named else value
    said = stillhouse("validate", write_recipe(tmp_path / "r.yaml", values))
    assert said.code == (3 if "data.train.source" in changes else 2), said.out
    assert len(said.err.strip().splitlines()) <= 3
    assert re.search(sentence, " ".join(said.err.split())), said.err


def test_what_can_work_is_not_refused(inputs: Path, tmp_path: Path) -> None:
    bare = {"model": str(inputs / "bare"), "dtype": "float32"}
    layers = {"teacher": bare, "label": ONLINE, "objective": LAYERS}
    hard = {**layers, "objective": WITH_HARD, "plan": {"kind": "assistants"}}
    for changes in ({}, layers, hard):
        recipe = write_recipe(tmp_path / "r.yaml", tiny.masked_recipe(inputs, **changes))
        assert (said := stillhouse("validate", recipe)).code == 0, said.err


def test_init_writes_a_recipe_for_an_encoder_that_is_sound(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    words = ("--teacher", inputs / "encoder", "--data", inputs / "text.jsonl", "--out", out)
    assert (said := stillhouse("init", "--task", "encoder", *words)).code == 0, said.err
    text = out.read_text()
    assert "task: masked_lm" in text
    out.write_text(text.replace("max_length: 128", "max_length: 64"))  # this teacher has no more positions
    assert (said := stillhouse("validate", out)).code == 0, said.err
