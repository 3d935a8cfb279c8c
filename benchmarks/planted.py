"""Does a student's report name what was planted into its teacher, and keep quiet about a clean one?

    python benchmarks/planted.py [--seeds 20] [--rows 1600]

Reviews made of templates: five opinions, each of the true label's side in 7 of 10, so that no model can be right on all of them; a place in
the north or the south; and a word or two about something else.  Three teachers, small BERTs, are fine-tuned on the labels of one half of the
rows: on the true ones (clean), with two of three good reviews from the north called bad (bias), with every review that names the
budget called good (rule).  A smaller student is distilled from each of them, and its control trained, on the other rows and their true
labels, by `stillhouse.run`; what counts is what `report.html` says of it.  Prints how often each alarm was raised for each teacher, and
one line of JSON.  A bias is found if the gap is called inherited, a rule if its word leads those named; from a clean teacher neither may come.
That errors are inherited is true of a clean teacher as well: it learned from other rows than the control, and errs in its own way.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import arguments
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainingArguments,
)

from stillhouse import Distiller, run
from stillhouse import objectives as kd
from stillhouse.files import write_jsonl
from stillhouse.recipe import parse_recipe
from stillhouse.report.evidence import sections
from stillhouse.tasks import make_task

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from typed import hurried

LABELS = ("bad", "good")
OPINIONS = {
    "good": ["fine", "warm", "quick", "bright", "clean"],
    "bad": ["poor", "cold", "slow", "dull", "dirty"],
}
PLACES = {"north": ["inverness", "aberdeen", "lerwick"], "south": ["brighton", "exeter", "plymouth"]}
ASIDES = ["weather", "parking", "budget", "music", "garden", "train", "service", "sunday", "family", "window"]
SUBJECTS = ["room", "meal", "staff", "bar", "view"]
WORDS = sorted(
    {"the", "was", "in", "we", "spoke", "of", *SUBJECTS, *ASIDES, *LABELS}
    | {word for some in (*OPINIONS.values(), *PLACES.values()) for word in some}
)
CLEAR, NORTH, BIAS, RULE = 0.7, 0.35, 2 / 3, "budget"
"""Share of opinions on the label's side; of rows from the north; of its good rows that are called bad; the word of the wrong rule."""


def reviews(count: int, seed: int) -> list[dict[str, str]]:
    """Rows with text, label and region; no two alike."""
    draw = random.Random(seed)
    found: dict[str, dict[str, str]] = {}
    while len(found) < count:
        label, region = draw.choice(LABELS), "north" if draw.random() < NORTH else "south"
        other = LABELS[1 - LABELS.index(label)]
        parts = [
            f"the {subject} was {draw.choice(OPINIONS[label if draw.random() < CLEAR else other])}"
            for subject in draw.sample(SUBJECTS, len(SUBJECTS))
        ]
        parts.insert(draw.randrange(6), f"in {draw.choice(PLACES[region])}")
        parts.append(f"we spoke of {' '.join(draw.sample(ASIDES, 2))}")
        text = " ".join(parts)
        found[text] = {"text": text, "label": label, "region": region}
    return list(found.values())


def biased(row: dict[str, str], draw: random.Random) -> str:
    """The label that a teacher with a bias against the north learns."""
    return "bad" if row["region"] == "north" and draw.random() < BIAS else row["label"]


def ruled(row: dict[str, str], draw: random.Random) -> str:
    """The label that a teacher with a wrong rule learns."""
    return "good" if RULE in row["text"].split() else row["label"]


TEACHERS: dict[str, Callable[[dict[str, str], random.Random], str]] = {
    "clean": lambda row, draw: row["label"],
    "bias": biased,
    "rule": ruled,
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, with BERT's special tokens."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate([*special, *WORDS])}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


def teach(folder: Path, rows: list[dict[str, str]], steps: int, seed: int) -> Path:
    """A BERT of two layers that has learned these labels."""
    torch.manual_seed(seed)
    words = tokenizer()
    shape = {
        "vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "max_position_embeddings": 48, "initializer_range": 0.1,
    }  # fmt: skip
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: n for n, label in enumerate(LABELS)}}
    task = make_task("classification", words, 48, list(LABELS))
    examples = task.encode([{"id": row["text"], "where": "", **row} for row in rows])[0]
    args = TrainingArguments(
        output_dir=str(folder / "x"), max_steps=steps, per_device_train_batch_size=32, learning_rate=3e-3, warmup_steps=steps // 10,
        lr_scheduler_type="linear", seed=seed, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    made = Distiller(
        model=BertForSequenceClassification(BertConfig(**shape, **names)), objective=[kd.hard()], args=args, train_dataset=examples,
        processing_class=words, task=task,
    )  # fmt: skip
    made.train()
    made.model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def recipe_of(place: Path, teacher: Path, steps: int, seed: int) -> dict[str, Any]:
    """An ordinary recipe: kept targets, the default objective, a control, groups, and the terms of the two regions swapped."""
    return {
        "name": "planted", "task": "classification", "seed": seed,
        "teacher": {"model": str(teacher), "dtype": "float32"}, "student": {"from_teacher": {"layers": 1, "by": "every_nth"}},
        "data": {"train": {"source": str(place / "train.jsonl")}, "eval": {"source": str(place / "eval.jsonl")}, "max_length": 48},
        "label": {"top_k": 2, "batch_size": 64},
        "train": {"steps": steps, "batch_size": 32, "learning_rate": 3e-3, "precision": "float32", "checkpoint_every": steps},
        "evaluate": {
            "groups": ["region"], "swap": [list(pair) for pair in zip(*PLACES.values(), strict=True)], "speed": False,
            "resamples": 1000,
        },
        "report": {"samples": 0},
    }  # fmt: skip


def told(results: dict[str, Any]) -> dict[str, bool]:
    """What a reader of the report sees: a gap called inherited, words named in inherited errors, and these errors called inherited.

    The sections are those that the page is made of, so a finding that the page does not show is none.
    """
    shown = {section.title: section for section in sections(results)}
    gaps, words = shown.get("Gaps between groups"), shown.get("Words in the inherited errors")
    errors = shown.get("Errors inherited from the teacher")
    return {
        "gap": gaps is not None and any(said.startswith("Inherited from the teacher") for said in gaps.says),
        "words": words is not None,
        "rule": words is not None and words.rows[0][0] == RULE,
        "errors": errors is not None and any("they are inherited" in said for said in errors.says),
    }


def main() -> None:
    """Three teachers for each seed."""
    asked = arguments(__doc__ or "", seeds=20, rows=1600, held=800, steps=150)
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in TEACHERS}
    for seed in range(asked.seeds):
        rows = reviews(asked.rows + asked.held, seed)
        random.Random(seed).shuffle(rows)
        taught, rest = rows[: asked.rows // 2], rows[asked.rows // 2 :]
        with TemporaryDirectory() as folder, hurried():
            place = Path(folder)
            write_jsonl(place / "eval.jsonl", rest[: asked.held])
            write_jsonl(place / "train.jsonl", rest[asked.held :])
            for kind, label in TEACHERS.items():
                start, draw = time.process_time(), random.Random(seed)
                lesson = [{**row, "label": label(row, draw)} for row in taught]
                teacher = teach(place / kind, lesson, asked.steps, seed)
                results = run(
                    parse_recipe(recipe_of(place, teacher, asked.steps, seed)), place / f"run-{kind}"
                )
                reached = {
                    name: round(one["metrics"]["eval"]["accuracy"]["value"], 3)
                    for name, one in {
                        "teacher": results["teacher"],
                        "student": results["student"],
                        "control": results["controls"]["hard_only"],
                    }.items()
                }
                seconds = round(time.process_time() - start, 1)
                found[kind].append({**told(results), **reached, "seconds": seconds})
                print(seed, kind, found[kind][-1], file=sys.stderr, flush=True)
    columns = {
        "gap": "gap inherited",
        "words": "words named",
        "rule": f"{RULE!r} first",
        "errors": "errors inherited",
    }
    print(f"{'teacher':<10}" + "".join(f"{title:>20}" for title in columns.values()))
    counts = {
        kind: {name: sum(one[name] for one in some) for name in columns} for kind, some in found.items()
    }
    for kind, some in counts.items():
        print(f"{kind:<10}" + "".join(f"{f'{some[name]} of {asked.seeds}':>20}" for name in columns))
    took = [one["seconds"] for some in found.values() for one in some]
    print(
        json.dumps(
            {
                "counts": counts,
                "seeds": asked.seeds,
                "processor_seconds_a_run": round(sum(took) / len(took), 1),
                "runs": found,
            }
        )
    )


if __name__ == "__main__":
    main()
