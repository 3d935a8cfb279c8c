"""Whole runs whose encoder–decoders lose the tokens that their rows do not need."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional as F

import subwords
import tiny
from stillhouse.data.encode import read_examples
from stillhouse.files import read_json
from stillhouse.models.load import load_model, load_tokenizer, parameters
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.runner import run_stages
from stillhouse.tasks import make_task
from stillhouse.tasks.writing import greedy
from typed import Said, hurried, stillhouse

AUTO = "AutoModelForSeq2SeqLM"
ALONE = """
import sys, transformers
sys.modules["stillhouse"] = None
model = transformers.AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1])
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
made = model.generate(**tokenizer("the old house", return_tensors="pt"), max_new_tokens=6)
print(type(tokenizer).__name__, len(tokenizer), tuple(model.shared.weight.shape)[0], model.config.vocab_size, made.shape[0])
"""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path_factory.getbasetemp() / "trimmed-cache"))


def recipe(inputs: Path, vocabulary: Any = "data", **changes: Any) -> dict[str, Any]:
    """A run of some seconds; its teacher and rows are written into `inputs`."""
    if not (inputs / "teacher").exists():
        subwords.save("t5", inputs / "teacher")
        tiny.translation_file(inputs / "rows.jsonl", 120)
    return {
        "name": "trimmed",
        "task": "seq2seq",
        "teacher": {"model": str(inputs / "teacher"), "dtype": "float32"},
        "student": {"from_teacher": {"layers": 2, "rows": 8}, "vocabulary": vocabulary},
        "data": {"train": {"source": str(inputs / "rows.jsonl")}, "split": 20, "max_length": 24},
        "label": {"top_k": 16, "batch_size": 16},
        "train": {"steps": 20, "batch_size": 8, "learning_rate": 2e-3, "precision": "float32"},
        "evaluate": {"resamples": 200, "speed": False, "answers": {"max_new_tokens": 8, "rows": 8}},
        "report": {"samples": 2},
        **changes,
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """The recipe with a teacher that is fine-tuned first, run whole by the command line."""
    inputs = tmp_path_factory.mktemp("trimmed")
    values = recipe(inputs)
    values["teacher"]["finetune"] = {"epochs": 4, "learning_rate": 3e-3, "batch_size": 16}
    (inputs / "my.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with hurried(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLHOUSE_CACHE", str(tmp_path_factory.getbasetemp() / "trimmed-cache"))
        said = stillhouse("run", inputs / "my.yaml", "--folder", inputs / "run", "--format", "json")
    assert said.code == 0, said.err
    return inputs / "run", said


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def test_teacher_and_student_of_a_whole_run_have_the_kept_tokens_alone(done: tuple[Path, Said]) -> None:
    folder, _ = done
    found = results(folder)
    counts = read_json(folder / "prepare" / "DONE.json")["result"]["teacher"]["vocabulary"]
    assert counts["kept"] < 0.8 * counts["of"]
    student, taught = (load_model(folder / name, AUTO) for name in ("student", "teacher/model"))
    for model in (student, taught):
        assert len(model.shared.weight) == model.lm_head.out_features == counts["kept"]
    assert found["student"]["parameters"] == parameters(student)
    assert found["teacher"]["parameters"] == parameters(taught)
    assert read_json(folder / "plan" / "plan.json")["student_parameters"] == parameters(student)
    learned, initial = (
        one["metrics"]["eval"]["bits_per_byte"]["value"]
        for one in (found["student"], found["controls"]["initial"])
    )
    assert learned < initial
    assert (folder / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_a_trimmed_student_is_an_ordinary_model_without_us(done: tuple[Path, Said]) -> None:
    folder, _ = done
    kept = read_json(folder / "prepare" / "DONE.json")["result"]["teacher"]["vocabulary"]["kept"]
    words = [sys.executable, "-c", ALONE, str(folder / "student")]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == ["T5Tokenizer", str(kept), str(kept), str(kept), "1"]


def test_a_trimmed_run_goes_on_where_it_stopped(done: tuple[Path, Said], tmp_path: Path) -> None:
    folder, _ = done
    again = Path(shutil.copytree(folder, tmp_path / "run"))
    for name in ("report", "evaluate", "train"):
        shutil.rmtree(again / name)
    (again / "results.json").unlink()
    before = (again / "label" / "DONE.json").stat().st_mtime_ns
    with hurried():
        said = stillhouse("run", folder.parent / "my.yaml", "--folder", again)
    assert said.code == 0, said.err
    assert (again / "label" / "DONE.json").stat().st_mtime_ns == before, "nothing was labelled again"
    assert results(again)["student"]["metrics"] == results(folder)["student"]["metrics"]


def test_as_many_tokens_stay_as_are_asked_for(tmp_path: Path) -> None:
    """Also of a teacher whose configuration names its class without a head, as bart-base's does."""
    values, described = recipe(tmp_path, vocabulary=60), tmp_path / "teacher" / "config.json"
    described.write_text(json.dumps({**read_json(described), "architectures": ["T5Model"]}), encoding="utf-8")
    with hurried():
        run_stages(parse_recipe(values), tmp_path / "run", Silent(), until="initial")
    facts = read_json(tmp_path / "run" / "prepare" / "DONE.json")["result"]["teacher"]
    assert facts["vocabulary"]["kept"] == 60
    made = read_json(Path(facts["folder"]) / "config.json")["architectures"]
    assert made == ["T5ForConditionalGeneration"]
    assert (Path(facts["folder"]) / "generation_config.json").is_file()
    for folder in (Path(facts["folder"]), tmp_path / "run" / "initial" / "model"):
        assert len(load_model(folder, AUTO).shared.weight) == 60 == len(load_tokenizer(folder))
    for one in read_examples(tmp_path / "run" / "prepare" / "train.parquet"):
        assert max(one.input_ids) < 60


def taught_to_end(folder: Path, rows: Path) -> None:
    """Teach the model in `folder` the rows a little: what it writes has words and an end."""
    task = make_task("seq2seq", load_tokenizer(folder), 24)
    model = load_model(folder, AUTO)
    lines = rows.read_text(encoding="utf-8").splitlines()
    examples, _ = task.encode({"id": str(n), "where": "", **json.loads(line)} for n, line in enumerate(lines))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(80):
        batch = task.collate(examples[step % 6 :: 6])
        said = model(**task.inputs(model, batch)).logits
        F.cross_entropy(said.flatten(0, 1), batch["labels"].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def test_the_whole_teacher_writes_and_what_it_writes_is_kept(tmp_path: Path) -> None:
    """Targets of its own in place of the data's: written before anything is trimmed, in any tokens, all of which stay."""
    prompts = [{"prompt": row["prompt"]} for row in tiny.translations(30, seed=9)]
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in prompts), encoding="utf-8"
    )
    values = recipe(tmp_path)
    taught_to_end(tmp_path / "teacher", tmp_path / "rows.jsonl")
    values["data"] |= {
        "unlabelled": {"source": str(tmp_path / "prompts.jsonl")},
        "generate": [{"kind": "answers", "max_new_tokens": 12}],
    }
    with hurried():
        run_stages(parse_recipe(values), tmp_path / "run", Silent(), until="initial")
    facts = read_json(tmp_path / "run" / "prepare" / "DONE.json")["result"]["teacher"]
    old, new = (load_tokenizer(folder) for folder in (tmp_path / "teacher", Path(facts["folder"])))
    task = make_task("seq2seq", old, 24)
    said = greedy(
        task.load(tmp_path / "teacher"), task, [old(row["prompt"])["input_ids"] for row in prompts], 12
    )
    wanted = {
        row["prompt"]: old.decode(ids, skip_special_tokens=True).strip()
        for row, ids in zip(prompts, said, strict=True)
    }
    examples = read_examples(tmp_path / "run" / "prepare" / "train.parquet")
    read = {
        new.decode(one.asked, skip_special_tokens=True): new.decode(
            one.input_ids[one.starts[1] :], skip_special_tokens=True
        )
        for one in examples
    }
    there = [prompt for prompt in wanted if prompt in read]
    assert len(there) > 10
    same = sum(read[prompt] == wanted[prompt] for prompt in there)
    assert same == len(there)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("words", "student.vocabulary: the teacher's tokenizer is of the kind WordLevel"),
        ("source.spm", "student.vocabulary: the teacher's tokenizer (source.spm, Marian's) has no tokenizer.json"),
    ],
)  # fmt: skip
def test_validate_refuses_a_tokenizer_that_cannot_lose_tokens(spoil: str, said: str, tmp_path: Path) -> None:
    values = recipe(tmp_path)
    if spoil == "words":
        tiny.translator_tokenizer().save_pretrained(tmp_path / "teacher")
    else:
        (tmp_path / "teacher" / "tokenizer.json").rename(tmp_path / "teacher" / "source.spm")
        (tmp_path / "teacher" / "vocab.json").write_text("{}", encoding="utf-8")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    found = stillhouse("validate", tmp_path / "my.yaml")
    assert (found.code, said in " ".join(found.err.split())) == (2, True), found.err
