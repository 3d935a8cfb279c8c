"""`stillhouse init`: a commented recipe from a teacher, a task and a file of rows."""

import json
import re
from pathlib import Path

from .data.detect import detect
from .data.load import read_raw
from .errors import RecipeError
from .files import read_json
from .models.described import layer_count
from .models.fitting import positions
from .shipped import run_name
from .sources import known_package

TASKS = {
    "chat": "causal_lm",
    "text": "causal_lm",
    "seq2seq": "seq2seq",
    "encoder": "masked_lm",
    "classification": "classification",
}
"""What `--task` says -> the recipe's task."""
LENGTHS = {"classification": 128, "encoder": 128, "seq2seq": 256}
"""`data.max_length`, where it is not that of texts."""
FINETUNE = {
    "classification": "  finetune: {epochs: 2}      # remove this if the teacher already knows your labels\n",
    "seq2seq": "  # finetune: {epochs: 2}    # if the teacher does not write such targets yet\n",
}
"""A line for teachers that can be trained first."""
EVALUATE = """\
# evaluate:
#   also: [{name: elsewhere, source: other.jsonl}]      # another domain, in the place of Python's reference"""
WRITTEN = """\
evaluate:
  answers: {rows: 100}       # targets that the models write, by chrF; with the extra `eval` also metrics: [bleu, rouge]
  # also: [{name: elsewhere, source: other.jsonl}]      # rows that nobody trained on"""

TEMPLATE = """\
# Everything about one run.  Check it:  stillhouse validate {file}
# What it will take:  stillhouse plan {file}      Run it:  stillhouse run {file}
name: "{name}"
task: {task}
# licence: apache-2.0        # of the student, for its model card

teacher:
  model: {teacher}           # hub id, folder, .gguf file, or pypi:NAME==VERSION:path/inside
{teacher_sum}{finetune}
student:
{student}

data:
  train:
    source: {data}           # {detected}
{data_sum}    # columns: {{text: review, label: stars}}   # our name: the name in your file
    # limit: 1000
  split: 0.1                 # share held out to measure on; or give data.eval
  # group: author            # rows with the same value stay on one side of the split
  max_length: {max_length}

label:
  {kept}
  batch_size: {label_batch}

objective:
  - {{kind: forward_kl, weight: 0.8, temperature: {temperature}}}    # match the teacher's distribution
  - {{kind: hard, weight: 0.2}}                         # and the ground truth

train:
  epochs: {epochs}
  batch_size: {batch}
  learning_rate: {rate}

{evaluate}
# gate: {{min_retention: 0.9}}                           # exit code 6 below it
"""


def write_recipe(
    task: str, teacher: str, data: str, student: str | None, layers: int | None, out: Path
) -> list[str]:
    """Write `out`.  Returns: notes for a person.  Raises: RecipeError or DataError in a sentence."""
    if out.exists():
        raise RecipeError(f"{out}: is there already; choose another --out.")
    if student is not None and layers is not None:
        raise RecipeError("give --student or --layers, not both.")
    classify, writes = task == "classification", TASKS[task] in ("causal_lm", "seq2seq")
    if not out.absolute().parent.is_dir():
        raise RecipeError(f"{out.parent}: is no folder; make it first.")
    form = _detected(data, TASKS[task])
    text = TEMPLATE.format(
        file=out,
        name=run_name(out),
        task=TASKS[task],
        teacher=_quoted(teacher),
        teacher_sum=_pinned(teacher, "  "),
        data_sum=_pinned(data, "    "),
        finetune=FINETUNE.get(task, ""),
        evaluate=WRITTEN if task == "seq2seq" else EVALUATE,
        student=_student(teacher, student, layers),
        data=_quoted(data),
        detected=f"{form} rows" if form else "JSONL, CSV, Parquet, .txt or a datasets folder",
        max_length=_max_length(task, teacher, student),
        kept="top_k: 2                   # most probable classes that are kept; the rest is one more"
        if classify
        else "samples: 30                # draws of each position; divergences other than forward_kl need top_k: 64",
        label_batch=8 if writes else 32,
        temperature=2.0 if classify else 1.0,
        epochs=1 if writes else 3,
        batch=8 if writes else 32,
        rate="1e-4" if classify else "2e-4",
    )
    out.write_text(text, encoding="utf-8")
    return [f"{data}: {form} rows"] if form else []


def _detected(data: str, task: str) -> str | None:
    path = Path(data)
    if not path.exists():
        return None
    first = next(iter(read_raw(path)))
    return detect(first.fields, {}, task, first.where, "data.train")


def _student(teacher: str, student: str | None, layers: int | None) -> str:
    if student is not None:
        return f"  model: {_quoted(student)}"
    if layers is None:
        config = _folder(teacher) / "config.json"
        if not config.is_file():
            raise RecipeError(
                "--layers: say how many of the teacher's layers to keep (its config is not on this disk)."
            )
        have = layer_count(read_json(config))
        if have is None:
            raise RecipeError(
                f"{config}: does not say how many layers it has; say with --layers how many to keep."
            )
        layers = max(1, have // 2)
    return f"  from_teacher: {{layers: {layers}, by: block_influence}}   # keep those that change the hidden state most"


def _max_length(task: str, *models: str | None) -> int:
    """Tokens of a row: as many as such rows usually have, or as the models read that lie here, if these are fewer."""
    folders = [_folder(model) for model in models if model is not None]
    known = [positions(folder) for folder in folders if (folder / "config.json").is_file()]
    return min([LENGTHS.get(task, 512), *(most for most in known if most is not None)])


def _folder(source: str) -> Path:
    """Where a model's files lie, if they are here."""
    known = known_package(source)
    return known[1] if known else Path(source)


def _pinned(source: str, indent: str) -> str:
    """The line that pins a `pypi:` source: the sum that was trusted before, or what is missing."""
    if not source.startswith("pypi:"):
        return ""
    known = known_package(source)
    if known is None:
        return (
            f"{indent}# sha256: …      # of the wheel; needed, and `stillhouse validate` says how to get it\n"
        )
    return f"{indent}sha256: {known[0]}\n"


def _quoted(value: str) -> str:
    """As YAML text, in quotes where a colon, a hash or the like would mean something else."""
    return (
        value
        if re.fullmatch(r"[A-Za-z0-9./~][\w./~=-]*(:[\w./~=-]+)*", value)
        else json.dumps(value, ensure_ascii=False)
    )
