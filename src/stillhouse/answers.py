"""Answers to held-out prompts, written greedily by each model, against the answers that the data has.

What was written is kept in the run folder (answers-<model>.jsonl), so that a stopped evaluation goes on, and so that
people can read it.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .data.encode import Example
from .data.filters.texts import answer_of
from .data.formats import MARK, Row, answer_alone
from .errors import DataError
from .files import hash_json, read_jsonl, write_jsonl
from .measure import Rows
from .measure.text import ANSWER_METRICS, chrf_rows, match_rows
from .models.machine import device
from .progress import Watch
from .recipe import Answers
from .registry import load, require
from .store import Store
from .tasks import Task
from .tasks.bilingual import as_read_by, voice
from .tasks.writing import SLOTS, greedy

PURPOSES = {"rouge": "rouge_score.rouge_scorer", "bleu": "sacrebleu"}
"""Measure -> the module of the extra `eval` that it needs."""

Writer = Callable[[Any, Task, Sequence[Sequence[int]], int], list[list[int]]]
"""As `greedy`: (model, task, prompts, tokens at most) -> the tokens that it writes after each."""


def remembering(store: Store, identity: str) -> Writer:
    """`greedy` of the model of that content, which does not write again after a prompt what is in the store."""

    def write(model: Any, task: Task, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
        known = store.get("written", [identity, most]) or {}
        keys = [hash_json(list(prompt)) for prompt in prompts]
        if new := [at for at, key in enumerate(keys) if key not in known]:
            made = greedy(model, task, [prompts[at] for at in new], most)
            known |= {keys[at]: ids for at, ids in zip(new, made, strict=True)}
            store.put("written", [identity, most], known)
        return [known[key] for key in keys]

    return write


def write_answers(
    name: str,
    model: PreTrainedModel,
    task: Task,
    examples: list[Example],
    rows: list[dict[str, Any]],
    wanted: Answers,
    folder: Path,
    watch: Watch,
    write: Writer = greedy,
) -> list[dict[str, Any]]:
    """[{"row", "prompt", "reference", "answer"}] of the first `wanted.rows` rows that ask for something.

    Args: write: as `greedy`, or who remembers what that wrote.
    Raises: DataError if none does.
    """
    kept = folder / f"answers-{name}.jsonl"
    if kept.exists():
        return read_jsonl(kept)
    known = {row["id"]: row for row in rows}
    asked = [example for example in examples if "text" not in known[example.row]][: wanted.rows]
    if not asked:
        raise DataError(
            "evaluate.answers: no held-out row has a prompt and an answer; remove it, or measure on rows that do."
        )
    model.to(device()).eval()
    own = voice(task, model)
    read = as_read_by(task, model, asked)
    prompts = [of.asked for of in read]
    made: list[list[int]] = []
    for start in range(0, len(prompts), SLOTS):
        made += write(model, own, prompts[start : start + SLOTS], wanted.max_new_tokens)
        watch.step(f"{name} answers", len(made), len(asked))
    found = [
        {
            "row": of.row,
            "prompt": own.tokenizer.decode(prompt, skip_special_tokens=True),
            "reference": reference_of(known[of.row]),
            "answer": spoken(answer, own.tokenizer),
        }
        for of, prompt, answer in zip(asked, prompts, made, strict=True)
    ]
    write_jsonl(kept, found)
    return found


def spoken(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """What a model wrote, as text; where its tokenizer knows no line breaks (T5's), with those of the first mark between spaces."""
    text = str(tokenizer.decode(tokens, skip_special_tokens=True))
    if "\n" in str(tokenizer.decode(tokenizer(MARK)["input_ids"])):
        return text
    return re.sub(rf"(?:^|\s){MARK.strip()}(?:\s|$)", MARK, text, count=1)


def reference_of(row: dict[str, Any]) -> str:
    """What the data has as the (first) answer, without its reasons."""
    if "rationale" in row:
        return answer_alone(answer_of(cast(Row, row)))
    if "completion" in row:
        return str(row["completion"])
    return next(str(turn["content"]) for turn in row["messages"] if turn["role"] == "assistant")


def answer_rows(
    written: list[dict[str, Any]], rows: list[dict[str, Any]], wanted: Answers, reasons: bool = False
) -> Rows:
    """The columns of ANSWER_METRICS that `wanted` asks for.

    Args: reasons: whether answers may come after reasons where the row of data has none, too.
    Raises: MissingExtra; RecipeError for a bad checker.
    """
    reasoned = {row["id"] for row in rows if reasons or "rationale" in row}
    answers = [answer_alone(row["answer"]) if row["row"] in reasoned else row["answer"] for row in written]
    references = [row["reference"] for row in written]
    columns = match_rows(answers, references) | chrf_rows(answers, references)
    if "rouge" in wanted.metrics:
        columns |= rouge_rows(answers, references)
    if "bleu" in wanted.metrics:
        columns |= bleu_rows(answers, references)
    if wanted.checker is not None:
        known = {row["id"]: row for row in rows}
        columns["passed"] = passed(wanted.checker, answers, [known[row["row"]] for row in written])
    return columns


def rouge_rows(answers: Sequence[str], references: Sequence[str]) -> Rows:
    """F-measures of ROUGE-1, -2 and -L by rouge-score, with its stemmer."""
    scorer = require(PURPOSES["rouge"], "evaluate.answers.metrics: rouge")
    rouge = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    scores = [rouge.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
    return {
        name: np.array([score[name].fmeasure for score in scores]) for name in ("rouge1", "rouge2", "rougeL")
    }


def bleu_rows(answers: Sequence[str], references: Sequence[str]) -> Rows:
    """Matches, totals and lengths by sacrebleu, with its default tokens (13a)."""
    scorer = require(PURPOSES["bleu"], "evaluate.answers.metrics: bleu").BLEU(effective_order=True)
    scores = [
        scorer.sentence_score(answer, [reference])
        for answer, reference in zip(answers, references, strict=True)
    ]
    return {
        "bleu_hits": np.array([score.counts for score in scores], dtype=np.float64),
        "bleu_totals": np.array([score.totals for score in scores], dtype=np.float64),
        "bleu_length": np.array([score.sys_len for score in scores], dtype=np.float64),
        "bleu_reference": np.array([score.ref_len for score in scores], dtype=np.float64),
    }


def passed(target: str, answers: Sequence[str], rows: Sequence[dict[str, Any]]) -> "np.ndarray[Any, Any]":
    """What the user's checker, (answer, row) -> True, False or a share, says of each answer, [N] from 0 to 1.

    Raises: DataError that names the row on which it fails, or says something else.
    """
    checker: Callable[[str, dict[str, Any]], Any] = load(target)
    values = []
    for answer, row in zip(answers, rows, strict=True):
        try:
            value = float(checker(answer, dict(row)))
        except Exception as error:  # it is the user's code
            raise DataError(
                f"evaluate.answers.checker: {target} fails on {row['where']}: {type(error).__name__}: {error}; mend it."
            ) from error
        if not 0.0 <= value <= 1.0:
            raise DataError(
                f"evaluate.answers.checker: {target} says {value} of {row['where']}; return True, False or 0 to 1."
            )
        values.append(value)
    return np.array(values)


__all__ = ["ANSWER_METRICS", "Writer", "answer_rows", "remembering", "write_answers"]
