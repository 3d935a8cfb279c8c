"""Rounding after training against quantisation-aware training, on a cut-down `sentiment`: the fine-tuned teacher is the
student too, and learns its rounded form from itself.

    python benchmarks/quantised.py [--folder runs/benchmark-quantised] [--steps 100]

Bytes are those of the packed form: the rounded products and their scales, everything else in float32.
"""

import argparse
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from plans import cut_down
from stillhouse.evaluate import Evaluation
from stillhouse.files import read_json
from stillhouse.measure import difference
from stillhouse.models.load import parameters
from stillhouse.progress import Silent
from stillhouse.recipe import Quantize, parse_recipe
from stillhouse.report.numbers import with_interval
from stillhouse.runner import run_stages
from stillhouse.steps.measuring import to_measure
from stillhouse.steps.prepare import located, task_of
from stillhouse.train.forms import Quantized, inner_products

SHOWN = ("accuracy", "teacher_agreement", "teacher_kl")
STAGES = ("prepare", "teacher", "initial", "label", "train")
FORMS = ({"weights": "int8"}, {"weights": "int4", "group_size": 32}, {"weights": "int4", "group_size": 128})


def main() -> None:
    """Every form, both ways, on the same held-out rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-quantised"))
    parser.add_argument("--steps", type=int, default=100)
    asked = parser.parse_args()
    evaluation: Evaluation | None = None
    gaps = []
    print(f"| form | MB | {' | '.join(SHOWN)} |\n|---|---|{'---|' * len(SHOWN)}")
    for form in FORMS:
        wanted = Quantize.model_validate(form)
        student = {"from_teacher": {}, "quantize": form}
        values = cut_down("quantised", asked.steps, student=student)
        values["train"]["learning_rate"] = 2e-5
        values["objective"] = [{"kind": "forward_kl", "weight": 1.0}]
        recipe = parse_recipe(values)
        folder = asked.folder / recipe.name
        run_stages(recipe, folder, Silent(), until="train")
        results = {stage: read_json(folder / stage / "DONE.json")["result"] for stage in STAGES}
        task, place = task_of(recipe, results["prepare"], folder / "prepare"), folder / "label"
        teacher = located(results["teacher"]["folder"], place)
        if evaluation is None:
            (folder / "measured").mkdir(exist_ok=True)
            evaluation = to_measure(recipe, task, results, folder / "measured", Silent()).evaluation
            evaluation.read("teacher", task.load(teacher))
            say(evaluation, "float32", 4 * parameters(task.load(teacher)))
        name = " ".join(str(value) for value in form.values())
        rounded = task.load(teacher)
        size = packed_bytes(rounded, wanted)
        Quantized(wanted).begin(rounded)
        Quantized(wanted).finish(rounded, folder)
        evaluation.read(f"{name}, after training", rounded)
        say(evaluation, f"{name}, after training", size)
        evaluation.read(f"{name}, aware", task.load(located(results["train"]["folder"], place)))
        say(evaluation, f"{name}, aware", size)
        for metric in SHOWN:
            sides = [evaluation.units[f"{name}, {how}"]["eval"] for how in ("aware", "after training")]
            gap = difference(task.metrics[metric], *sides, resamples=2000, seed=0)
            found = f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] | {gap.p:.4f}"
            gaps.append(f"| {name} | {metric} | {found} |")
    print("\n| form | metric | aware − after training | p |\n|---|---|---|---|")
    print("\n".join(gaps), flush=True)


def packed_bytes(model: PreTrainedModel, wanted: Quantize) -> int:
    """Of a model whose inner products are rounded and packed, one float32 scale a row or group."""
    products = inner_products(model)
    rounded = sum(module.weight.numel() for module in products.values())
    bits = 8 if wanted.weights == "int8" else 4
    scales = sum(
        module.out_features
        if bits == 8
        else module.out_features * -(-module.in_features // wanted.group_size)
        for module in products.values()
    )
    return rounded * bits // 8 + 4 * scales + 4 * (parameters(model) - rounded)


def say(evaluation: Evaluation, name: str, size: int) -> None:
    """One line of the table."""
    found: dict[str, Any] = evaluation.metrics("teacher" if name == "float32" else name, 1000, 0)["eval"]
    cells = [with_interval(found.get(metric)) for metric in SHOWN]
    print(f"| {name} | {size / 1e6:.1f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
