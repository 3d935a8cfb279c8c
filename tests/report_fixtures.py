"""Two results.json as a run writes them: a causal language model and a classifier."""

import copy
import math
from typing import Any

RECIPE = """name: quickstart
task: causal_lm
teacher:
  model: pypi:some-models==1.0:smollm2-135m
student:
  from_teacher: {layers: 18}
data:
  train: {source: tale.txt, format: text}
"""

METRICS = {
    "bits_per_byte": {"title": "bits per byte", "unit": "bits", "higher_is_better": False},
    "perplexity": {"title": "perplexity", "unit": "", "higher_is_better": False},
    "teacher_agreement": {"title": "teacher agreement", "unit": "", "higher_is_better": True},
    "teacher_kl": {"title": "teacher KL", "unit": "nats", "higher_is_better": False},
    "token_accuracy": {"title": "token accuracy", "unit": "", "higher_is_better": True},
}

MACHINE = {
    "cpu": "Example CPU @ 2.60 GHz", "cores": 2, "memory_bytes": 25e9, "device": "cpu",
    "python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0",
}  # fmt: skip


def measured(value: float, width: float) -> dict[str, float]:
    """A value with a symmetric interval."""
    return {"value": value, "low": value - width, "high": value + width}


def _gain(value: float, width: float, higher: bool) -> dict[str, Any]:
    better = None if abs(value) < width else (value > 0) == higher
    return measured(value, width) | {"p": 0.4 if better is None else 0.001, "better": better}


def _language_metrics(
    bits: float, agreement: float | None, kl: float | None, accuracy: float
) -> dict[str, Any]:
    found = {"bits_per_byte": measured(bits, 0.03), "perplexity": measured(2 ** (bits * 4.2), 1.4)}
    if agreement is not None and kl is not None:
        found |= {"teacher_agreement": measured(agreement, 0.012), "teacher_kl": measured(kl, 0.02)}
    return found | {"token_accuracy": measured(accuracy, 0.011)}


def _language_model(
    name: str, parameters: int, seed: tuple[float, float | None, float | None, float]
) -> dict[str, Any]:
    bits, agreement, kl, accuracy = seed
    further = (
        bits + 0.08,
        None if agreement is None else agreement - 0.03,
        None if kl is None else kl + 0.05,
    )
    return {
        "name": name,
        "metrics": {
            "eval": _language_metrics(*seed),
            "year_2889": _language_metrics(*further, accuracy - 0.02),
        },
        "parameters": parameters,
        "bytes": parameters * 2.0,
        "throughput": {
            "prefill": 5.9e10 / parameters,
            "generate": 2.4e9 / parameters,
            "generate_batch": 8.6e9 / parameters,
            "unit": "tokens/s",
            "batch": {"prefill": 2, "generate": 1, "generate_batch": 8},
        },
        "peak_memory_bytes": 9.0 * parameters,
    }


def language_model() -> dict[str, Any]:
    """A causal language model that beats its control on the headline metric."""
    gains = {
        "eval": {
            "bits_per_byte": _gain(-0.04, 0.02, False), "perplexity": _gain(-1.1, 0.6, False),
            "teacher_agreement": _gain(0.06, 0.01, True), "teacher_kl": _gain(-0.21, 0.03, False),
            "token_accuracy": _gain(0.004, 0.009, True),
        },
        "year_2889": {
            "bits_per_byte": _gain(-0.01, 0.02, False), "perplexity": _gain(-1.9, 0.7, False),
            "teacher_agreement": _gain(0.05, 0.015, True), "teacher_kl": _gain(-0.18, 0.04, False),
            "token_accuracy": _gain(-0.02, 0.009, True),
        },
    }  # fmt: skip
    return {
        "name": "quickstart", "description": "A 135M language model distilled into 18 of its 30 layers.",
        "task": "causal_lm", "metric": "bits_per_byte", "created": "2026-11-23T10:00:00Z", "version": "0.1.0",
        "machine": dict(MACHINE),
        "licence": {"student": "apache-2.0", "teacher": "Apache-2.0", "data": "MIT"},
        "metrics": copy.deepcopy(METRICS),
        "teacher": _language_model("SmolLM2-135M-Instruct", 134_515_008, (1.02, None, None, 0.441)),
        "student": _language_model("quickstart", 80_300_000, (1.13, 0.71, 0.38, 0.402)),
        "controls": {
            "initial": _language_model("quickstart before", 80_300_000, (2.41, 0.22, 2.9, 0.17)),
            "hard_only": _language_model("quickstart hard only", 80_300_000, (1.17, 0.65, 0.59, 0.398)),
        },
        "floor": {
            "name": "unigram frequencies of the training text",
            "metrics": {"eval": {"bits_per_byte": {"value": 2.1}}, "year_2889": {"bits_per_byte": {"value": 2.2}}},
        },
        "retention": measured(0.91, 0.02) | {"note": None},
        "retentions": {"eval": measured(0.91, 0.02) | {"note": None}, "year_2889": measured(0.86, 0.03) | {"note": None}},
        "gain_over_hard_only": dict(gains["eval"]["bits_per_byte"]),
        "gains": gains,
        "datasets": {"eval": {"rows": 64, "tokens": 16000}, "year_2889": {"rows": 41, "tokens": 9100}},
        "data": {
            "format": "text", "rows": {"train": 400, "eval": 64},
            "dropped": {"duplicate": 3, "empty": 1, "also in eval": 2},
            "example": "It was the best of times, it was the worst of times, it was the age of wisdom, …",
        },
        "stages": {
            "prepare": {"seconds": 3.1, "predicted_seconds": 2.0}, "label": {"seconds": 48.0, "predicted_seconds": 52.0},
            "train": {"seconds": 310.0, "predicted_seconds": 280.0}, "evaluate": {"seconds": 61.0, "predicted_seconds": 75.0},
        },
        "samples": [
            {"prompt": "The old man opened the door and", "teacher": "looked at the sea, which was calm.",
             "student": "looked out at the sea.", "hard_only": "the door and the door and the door."},
            {"prompt": "In the year 2889, newspapers", "teacher": "are spoken, not printed.\nEvery subscriber hears them.",
             "student": "are spoken to the subscribers every morning.", "hard_only": "was a great many of the"},
        ],
    }  # fmt: skip


def _classifier(name: str, parameters: int, accuracy: float, speed: float) -> dict[str, Any]:
    scores = {"accuracy": measured(accuracy, 0.013), "macro_f1": measured(accuracy - 0.006, 0.015)}
    return {
        "name": name, "metrics": {"eval": scores}, "parameters": parameters, "bytes": parameters * 4.0,
        "throughput": {"rows": speed, "unit": "rows/s", "batch": {"rows": 32}}, "peak_memory_bytes": 6.0 * parameters,
    }  # fmt: skip


def _reliability(over: float) -> list[dict[str, Any]]:
    bins = []
    for index in range(10):
        middle = index / 10 + 0.05
        filled = index >= 5
        bins.append({
            "low": index / 10, "high": (index + 1) / 10, "count": 8 * (index - 4) ** 2 if filled else 0,
            "confidence": middle if filled else None, "accuracy": middle - over * (middle - 0.5) if filled else None,
        })  # fmt: skip
    return bins


def classifier() -> dict[str, Any]:
    """A two-class text classifier that ties with its control on the headline metric."""
    gain = _gain(0.004, 0.012, True)
    base = language_model()
    shared = ("created", "version", "machine", "licence")
    return {key: base[key] for key in shared} | {
        "name": "sentiment", "description": "Film reviews.", "task": "classification", "metric": "accuracy",
        "metrics": {
            "accuracy": {"title": "accuracy", "unit": "", "higher_is_better": True},
            "macro_f1": {"title": "macro F1", "unit": "", "higher_is_better": True},
        },
        "teacher": _classifier("bert-large", 335_000_000, 0.931, 110.0),
        "student": _classifier("sentiment", 14_400_000, 0.894, 812.0),
        "controls": {
            "initial": _classifier("sentiment before", 14_400_000, 0.504, 815.0),
            "hard_only": _classifier("sentiment hard only", 14_400_000, 0.890, 809.0),
        },
        "floor": {"name": "the most frequent label", "metrics": {"eval": {"accuracy": {"value": 0.5}}}},
        "retention": measured(0.914, 0.028) | {"note": None},
        "retentions": {"eval": measured(0.914, 0.028) | {"note": None}},
        "gain_over_hard_only": dict(gain),
        "gains": {"eval": {"accuracy": gain, "macro_f1": _gain(0.02, 0.01, True)}},
        "datasets": {"eval": {"rows": 872, "tokens": 21_000}},
        "data": {"format": "labelled", "rows": {"train": 6920, "eval": 872}, "dropped": {}, "example": "A fine film. → positive"},
        "stages": {"prepare": {"seconds": 1.2, "predicted_seconds": None}, "train": {"seconds": 95.0, "predicted_seconds": 80.0}},
        "samples": [
            {"text": "A fine film.", "label": "positive", "teacher": "positive (0.99)", "student": "positive (0.93)",
             "hard_only": "positive (0.88)", "kind": "both right"},
            {"text": "It goes on and on.", "label": "negative", "teacher": "negative (0.83)", "student": "positive (0.51)",
             "hard_only": "positive (0.62)", "kind": "student fails"},
        ],
        "reliability": {"teacher": _reliability(0.05), "student": _reliability(0.3)},
    }  # fmt: skip


def curves(steps: int = 80) -> list[dict[str, Any]]:
    """Loss rows of a run and its control, with the same jitter each time."""
    rows: list[dict[str, Any]] = []
    for step in range(5, 5 * steps + 1, 5):
        jitter = 0.12 * math.sin(step * 1.7)
        hard, soft = 2.4 + 2 * math.exp(-step / 90) + jitter, 0.4 + 1.9 * math.exp(-step / 70) + jitter / 2
        rows.append(
            {"run": "train", "step": step, "loss": 0.2 * hard + 0.8 * soft, "hard": hard, "forward_kl": soft}
        )
        rows.append({"run": "control", "step": step, "loss": hard + 0.05, "hard": hard + 0.05})
    return rows


def ten_thousand_rows() -> dict[str, Any]:
    """The classifier's run as if measured on 10,000 rows of seven classes, with everything that can be said of them."""
    labels = ["anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"]
    results = classifier()
    results["datasets"] = {"eval": {"rows": 10_000, "tokens": 400_000}}
    level, who = measured(0.8, 0.02), ("teacher", "student", "hard_only")
    three = {name: measured(0.9 - 0.05 * place, 0.02) for place, name in enumerate(who)}
    each = {name: {"precision": level, "recall": level, "f1": three[name]} for name in who}
    results["classes"] = {
        "table": [{"label": label, "support": 1_400, "models": each} for label in labels],
        "confusions": {
            name: [{"label": "joy", "answered": "fear", "rows": 90, "share": 0.06}] for name in who[:2]
        },
    }
    results["disagreement"] = [
        {"by": by, "value": value, "rows": 1_400, "agreement": level}
        for by, values in (("label", labels), ("length", ["shortest quarter", "longest quarter"]))
        for value in values
    ]
    results["groups"] = {
        "eval": {
            "gaps": [
                {
                    "column": "dialect", "group": group, "metric": "accuracy", "title": "accuracy", "rows": 3_000,
                    "models": {name: measured(0.04 * place, 0.02) for name in who}, "growth": level, "drift": {**level, "p": 0.2}, "inherited": {**level, "p": 0.01},
                    "alarm": place == 1,
                }
                for place, group in enumerate(("north", "west"))
            ]
        }
    }  # fmt: skip
    ways = (("joy", "fear"), ("fear", "joy"), ("fear", "fear"), ("joy", "joy"))
    results["samples"] = [
        {
            "text": f"{number} " + "It went on and on, and nobody knew why. " * (1 + number % 40), "label": "joy",
            "teacher": f"{ways[number % 4][0]} (0.91)", "student": f"{ways[number % 4][1]} (0.72)", "hard_only": "joy (0.55)",
        }
        for number in range(400)
    ]  # fmt: skip
    return results


def plan_row(name: str, value: float, parameters: int, up: bool = True) -> dict[str, Any]:
    """A run of a plan."""
    return {
        "name": name, "about": "<script>alert(1)</script>", "runs": [name], "needs": [], "builds_on": [], "metric": "accuracy",
        "higher_is_better": up, "quality": {"value": value, "low": value - 0.02, "high": value + 0.02, "seeds": 1},
        "also": {"emails": {"value": value - 0.1, "low": value - 0.15, "high": value - 0.05, "seeds": 1}},
        "retention": None, "gain": None, "parameters": parameters, "seconds": 3.0, "taken": {},
    }  # fmt: skip


def plan(better: bool | None, value: float = 0.04, **changes: Any) -> dict[str, Any]:
    """A plan's results: one comparison."""
    gap = {"of": "chain", "against": "direct", "on": "eval", "metric": "accuracy", "value": value, "low": value - 0.01,
           "high": value + 0.01, "better": better, "seeds": 3}  # fmt: skip
    elsewhere = {**gap, "on": "emails", "value": 0.5, "low": 0.4, "high": 0.6, "better": True}
    metrics = {"accuracy": {"title": "accuracy", "unit": "share", "higher_is_better": True}}
    return {
        "plan": "assistants", "name": "toy", "description": "", "created": "now", "version": "0", "task": "classification",
        "metric": "accuracy", "metrics": metrics, "machine": {}, "teacher": {"metrics": {"eval": {}}, "parameters": 9},
        "runs": [plan_row("chain", 0.8, 10), plan_row("direct", 0.76, 10)], "comparisons": [gap, elsewhere], "product": "chain",
        "notes": [], "seconds": 6.0, **changes,
    }  # fmt: skip
