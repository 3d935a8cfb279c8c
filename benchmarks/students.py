"""Students made from SmolLM2-135M before any training: which layers to keep, and whether targets are met.

python benchmarks/students.py depth      perplexity on held-out rows with half of the layers, by each criterion
python benchmarks/students.py targets    parameters, bytes and speed: asked and got
"""

import argparse
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from transformers import PreTrainedModel

from stillhouse.data.encode import Example, read_examples
from stillhouse.files import folder_bytes, read_json
from stillhouse.models.load import parameters
from stillhouse.models.shrink.cut import skeleton_of
from stillhouse.models.shrink.depth import mean_loss
from stillhouse.progress import Silent
from stillhouse.recipe import FromTeacher, Student, Target, load_recipe
from stillhouse.report.numbers import with_interval
from stillhouse.runner import run_stages
from stillhouse.steps.prepare import task_of
from stillhouse.steps.shrinking import Shrinking
from stillhouse.steps.speed import Speed
from stillhouse.tasks import Task

Importance = Literal["every_nth", "block_influence", "similarity", "perplexity"]
CRITERIA: tuple[Importance, ...] = ("every_nth", "block_influence", "similarity", "perplexity")


def prepared(folder: Path, max_length: int) -> tuple[Task, Path, list[Example], list[Example]]:
    """(task, the teacher's folder, training rows, held-out rows) of the recipe `quickstart`."""
    changes = [f"data.max_length={max_length}", "student.from_teacher.by=every_nth"]
    recipe = load_recipe("recipes/quickstart/recipe.yaml", changes)
    run_stages(recipe, folder, Silent(), until="prepare")
    facts = read_json(folder / "prepare" / "DONE.json")["result"]
    train, held = (read_examples(folder / "prepare" / f"{name}.parquet") for name in ("train", "eval"))
    return task_of(recipe, facts, folder / "prepare"), Path(facts["teacher"]["folder"]), train, held


def perplexity(made: Shrinking, student: PreTrainedModel, rows: list[Example]) -> float:
    """On `rows`, by the same probes that importance is measured with."""
    probe = Shrinking.__new__(Shrinking)
    probe.__dict__ |= {
        **vars(made),
        "model": student,
        "examples": rows,
        "wanted": FromTeacher(rows=len(rows)),
    }
    return math.exp(mean_loss(list(probe._probes("reading"))))


def depth(folder: Path, args: argparse.Namespace) -> None:
    """Half of the layers, by each criterion."""
    task, teacher, train, held = prepared(folder, args.max_length)
    held = held[: args.held]
    for by in CRITERIA:
        wanted = Student(from_teacher=FromTeacher(layers=args.layers, by=by, rows=args.rows))
        made = Shrinking(wanted, task, teacher, train, Silent())
        if by == "every_nth":
            print(
                f"teacher: perplexity {perplexity(made, made.model, held):.1f} on {len(held)} rows",
                flush=True,
            )
        student, how = made.student(made.shapes()[0])
        print(f"{by}: perplexity {perplexity(made, student, held):.4g}, layers {how['layers']}", flush=True)


def saved_bytes(student: PreTrainedModel) -> int:
    """Of its weights on disk."""
    with TemporaryDirectory() as folder:
        student.save_pretrained(folder)
        return folder_bytes(Path(folder), lambda path: path.suffix == ".safetensors")


def targets(folder: Path, args: argparse.Namespace) -> None:
    """Asked and got."""
    task, teacher, train, _ = prepared(folder, args.max_length)
    print("| asked | got | share of it | shape |\n|---|---|---|---|")
    for asked in ({"parameters": "20M"}, {"bytes": "40MB"}, {"parameters": "67M"}, {"memory": "300MB"}):
        made = Shrinking(Student(target=Target(**asked)), task, teacher, train, Silent())
        shape = made.shapes()[0]
        student = made.unmeasured(shape)
        kind, amount = Target(**asked).named
        got = parameters(student) if kind == "parameters" else saved_bytes(student)
        if kind == "memory":
            got = skeleton_of(made.model).memory(shape, args.max_length)
        print(f"| {kind}: {asked[kind]} | {got:,} | {got / amount:.3f} | {shape.said()} |", flush=True)
    made = Shrinking(Student(target=Target(tokens_per_second="2x")), task, teacher, train, Silent())
    shape = made.shapes()[0]
    speed = Speed(made.model, task, train)
    again = [round(speed.times_as_fast(made.unmeasured(shape)).value, 3) for _ in range(3)]
    reached = with_interval(made.how["times_as_fast"])
    share = made.how["times_as_fast"]["value"] / 2
    print(f"| tokens_per_second: 2x | {reached}, again {again} | {share:.3f} | {shape.said()} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("depth", "targets"))
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-students"))
    parser.add_argument("--layers", type=int, default=15)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--held", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=64)
    given = parser.parse_args()
    {"depth": depth, "targets": targets}[given.what](given.folder, given)
