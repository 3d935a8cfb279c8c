"""`stillhouse init`: a commented recipe from a teacher, a task and a file of rows."""

from pathlib import Path

from .data.formats import detect
from .data.load import read_raw
from .errors import RecipeError
from .files import read_json
from .shipped import run_name

TASKS = {"chat": "causal_lm", "text": "causal_lm", "classification": "classification"}

TEMPLATE = """\
# Everything about one run.  Check it:  stillhouse validate {file}
# What it will take:  stillhouse plan {file}      Run it:  stillhouse run {file}
name: {name}
task: {task}
# licence: apache-2.0        # of the student, for its model card

teacher:
  model: {teacher}           # hub id, folder, .gguf file, or pypi:NAME==VERSION:path/inside
{finetune}
student:
{student}

data:
  train:
    source: {data}           # {detected}
    # columns: {{text: review, label: stars}}   # our name: the name in your file
    # limit: 1000
  split: 0.1                 # share held out to measure on; or give data.eval
  # group: author            # rows with the same value stay on one side of the split
  max_length: {max_length}

label:
  top_k: {top_k}                  # most probable outcomes kept of each position; the rest is one more outcome
  batch_size: {label_batch}

objective:
  - {{kind: forward_kl, weight: 0.8, temperature: {temperature}}}    # match the teacher's distribution
  - {{kind: hard, weight: 0.2}}                         # and the ground truth

train:
  epochs: {epochs}
  batch_size: {batch}
  learning_rate: {rate}

# evaluate:
#   also: [{{name: elsewhere, source: other.jsonl}}]      # text that nobody trained on
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
    classify = task == "classification"
    form = _detected(data, TASKS[task])
    text = TEMPLATE.format(
        file=out,
        name=run_name(out),
        task=TASKS[task],
        teacher=teacher,
        finetune="  finetune: {epochs: 2}      # remove this if the teacher already knows your labels\n"
        if classify
        else "",
        student=_student(teacher, student, layers),
        data=data,
        detected=f"{form} rows" if form else "JSONL, CSV, Parquet, .txt or a datasets folder",
        max_length=128 if classify else 512,
        top_k=2 if classify else 64,
        label_batch=32 if classify else 8,
        temperature=2.0 if classify else 1.0,
        epochs=3 if classify else 1,
        batch=32 if classify else 8,
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
        return f"  model: {student}"
    if layers is None:
        config = Path(teacher) / "config.json"
        if not config.is_file():
            raise RecipeError(
                "--layers: say how many of the teacher's layers to keep (its config is not on this disk)."
            )
        layers = max(1, int(read_json(config)["num_hidden_layers"]) // 2)
    return f"  from_teacher: {{layers: {layers}, by: block_influence}}   # keep those that change the hidden state most"
