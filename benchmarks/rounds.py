"""Rounds on sums like reasoning-gym's `chain_sum`, judged by whether the answer is right.

    python benchmarks/rounds.py [--folder runs/benchmark-rounds] [--teacher-steps 4000] [--steps 2000] [--rows 1000]

A small model of characters learns to add here and is the teacher; a student of half its layers learns from 1,500 problems,
sees on which of 8,000 fresh ones it is farthest from the teacher, and learns on.  Printed: right answers after each round,
with intervals, beside as many problems at random; it stops by itself.  Run it again and it goes on.
"""

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainingArguments

from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.files import atomic_folder, read_json, write_jsonl
from stillhouse.progress import Lines
from stillhouse.recipe import parse_recipe
from stillhouse.report.numbers import with_interval
from stillhouse.runner import run
from stillhouse.seeds import draw_seed

LETTERS = "0123456789+-= "


def right(answer: str, row: dict[str, Any]) -> bool:
    """Whether a problem was answered."""
    return answer.strip() == str(row["completion"]).strip()


def problems(count: int, name: str, seed: int = 0) -> list[dict[str, str]]:
    """`chain_sum` of two or three terms of one or two digits: "31 + 4 - 12 =" -> " 23"."""
    draw = random.Random(draw_seed(seed, name))
    rows = []
    for _ in range(count):
        terms = [draw.randrange(50) for _ in range(draw.choice((2, 3)))]
        signs = [draw.choice("+-") for _ in terms[1:]]
        total = terms[0] + sum(
            term if sign == "+" else -term for sign, term in zip(signs, terms[1:], strict=True)
        )
        text = str(terms[0]) + "".join(f" {sign} {term}" for sign, term in zip(signs, terms[1:], strict=True))
        rows.append({"prompt": f"{text} =", "completion": f" {total}"})
    return rows


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    pieces = ["<end>", *LETTERS]
    inner = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token=" "))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<end>", pad_token="<end>", bos_token="<end>"
    )


def teacher(folder: Path, steps: int) -> Path:
    """A model that adds, trained on 40,000 problems; made once."""
    if folder.exists():
        return folder
    own = tokenizer()
    config = LlamaConfig(
        vocab_size=len(own), hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=64, tie_word_embeddings=True,
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    args = TrainingArguments(
        output_dir=str(folder.with_name("teacher-checkpoints")), max_steps=steps, per_device_train_batch_size=64,
        learning_rate=1e-3, lr_scheduler_type="cosine", warmup_steps=steps // 20, use_cpu=True, report_to=[],
        save_steps=max(1, steps // 4), save_total_limit=1, logging_steps=max(1, steps // 20), disable_tqdm=True,
    )  # fmt: skip
    learning = Distiller(
        model=model, objective=[kd.hard(1.0)], args=args, train_dataset=problems(40_000, "teacher"), processing_class=own
    )  # fmt: skip
    learning.train(resume_from_checkpoint=True)
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        own.save_pretrained(part)
    return folder


def recipe_values(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Rounds, judged by `right`."""
    files = {name: folder / f"{name}.jsonl" for name in ("train", "eval", "pool")}
    for (name, path), count in zip(files.items(), (1500, asked.held, 8000), strict=True):
        write_jsonl(path, problems(count, name))
    return {
        "name": "bench-rounds",
        "task": "causal_lm",
        "teacher": {"model": str(teacher(folder / "teacher", asked.teacher_steps)), "dtype": "float32"},
        "student": {"from_teacher": {"layers": 2}},
        "data": {
            "train": {"source": str(files["train"])}, "eval": {"source": str(files["eval"])}, "max_length": 32,
        },
        "label": {"top_k": 8, "batch_size": 128},
        "objective": [{"kind": "forward_kl", "weight": 0.8}, {"kind": "hard", "weight": 0.2}],
        "train": {"steps": asked.steps, "batch_size": 64, "learning_rate": 1e-3, "checkpoint_every": asked.steps, "precision": "float32"},
        "evaluate": {
            "answers": {"rows": asked.held, "max_new_tokens": 6, "checker": "rounds:right"},
            "speed": False, "hard_only": True,
        },
        "report": {"samples": 0},
        "plan": {
            "kind": "rounds", "pool": {"source": str(files["pool"])}, "rows": asked.rows, "most": asked.most,
            "judge": "answers",
        },
    }  # fmt: skip


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-rounds"))
    for name, default in (
        ("teacher-steps", 4000),
        ("steps", 2000),
        ("rows", 1000),
        ("held", 500),
        ("most", 4),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    sys.modules["rounds"] = sys.modules["__main__"]
    asked.folder.mkdir(parents=True, exist_ok=True)
    found = run(parse_recipe(recipe_values(asked.folder, asked)), asked.folder / "plan", watch=Lines())
    first = read_json(asked.folder / "plan" / "runs" / "round-0" / "results.json")
    taught = first["teacher"]["metrics"]["eval"]["pass_rate"]
    print(f"\nteacher: {with_interval(taught)} right\n")
    print("| round | problems chosen | right | gain | with problems at random |\n|---|---|---|---|---|")
    print(f"| 0 | 0 | {with_interval(first['student']['metrics']['eval']['pass_rate'])} | – | – |")
    for row in found["rounds"]["history"]:
        cells = [with_interval(row["after"]), with_interval(row), with_interval(row["at_random"])]
        print(f"| {row['round']} | {row['rows']} | {' | '.join(cells)} |")
    print(f"\n{found['rounds']['why']}")
    print(json.dumps({"rounds": found["rounds"]}, default=str))


if __name__ == "__main__":
    main()
