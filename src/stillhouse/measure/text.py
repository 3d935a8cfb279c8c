"""How good written answers are: per-answer statistics, and metrics that are functions of their sums.

BLEU and chrF are defined on a whole corpus; both are functions of summed n-gram counts, so they fit here as they are.
numpy and the standard library only: what needs a library (BLEU's tokens, ROUGE) gets its numbers from `answers`.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from .metrics import FloatArray, Metric, Rows, by_name, mean

ORDER, BETA = 6, 2.0
"""chrF2 of character 1-grams to 6-grams, as in sacrebleu."""
BLEU_ORDER = 4


def normalised(text: str) -> list[str]:
    """Words in lower case, without punctuation and articles.  Source: Rajpurkar et al. 2016, arXiv:1606.05250."""
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def match_rows(answers: Sequence[str], references: Sequence[str]) -> Rows:
    """exact (the normalised words are the same) and f1 (of the bags of words), as SQuAD has them."""
    exact, f1 = [], []
    for answer, reference in zip(answers, references, strict=True):
        mine, theirs = normalised(answer), normalised(reference)
        shared = sum((Counter(mine) & Counter(theirs)).values())
        exact.append(float(mine == theirs))
        f1.append(2.0 * shared / (len(mine) + len(theirs)) if mine and theirs else float(mine == theirs))
    return {"answers": np.ones(len(exact)), "exact": np.array(exact), "f1": np.array(f1)}


def chrf_rows(answers: Sequence[str], references: Sequence[str]) -> Rows:
    """n-gram counts of characters without white space: of the answer, the reference and both, [N, 6] each."""
    counts = np.zeros((3, len(answers), ORDER))
    for row, (answer, reference) in enumerate(zip(answers, references, strict=True)):
        mine, theirs = ("".join(text.split()) for text in (answer, reference))
        for order in range(1, ORDER + 1):
            a, b = (
                Counter(text[at : at + order] for at in range(len(text) - order + 1))
                for text in (mine, theirs)
            )
            counts[:, row, order - 1] = (
                sum(a.values()) if sum(b.values()) else 0, sum(b.values()), sum((a & b).values()),
            )  # fmt: skip
    return {"chrf_answer": counts[0], "chrf_reference": counts[1], "chrf_both": counts[2]}


def chrf(sums: dict[str, FloatArray]) -> FloatArray:
    """chrF2 of a corpus, 0 to 100.  Source: Popović 2015, chrF: character n-gram F-score, WMT; averaged as sacrebleu does."""
    mine, theirs, both = sums["chrf_answer"], sums["chrf_reference"], sums["chrf_both"]
    used = (mine > 0) & (theirs > 0)
    tiny = 1e-16
    precision = np.where(used, both / np.maximum(mine, 1), tiny).sum(-1)
    recall = np.where(used, both / np.maximum(theirs, 1), tiny).sum(-1)
    orders = np.maximum(used.sum(-1), 1)
    precision, recall = precision / orders, recall / orders
    weight = BETA**2
    below = np.maximum(weight * precision + recall, tiny)
    return np.asarray(100.0 * np.where(used.any(-1), (1 + weight) * precision * recall / below, 0.0))


def bleu(sums: dict[str, FloatArray]) -> FloatArray:
    """BLEU-4 of a corpus, 0 to 100, with sacrebleu's exponential smoothing of orders without a match.

    Source: Papineni et al. 2002, BLEU; Post 2018, arXiv:1804.08771.
    """
    hits, totals = sums["bleu_hits"], sums["bleu_totals"]
    halvings = np.cumsum((hits == 0) & (totals > 0), axis=-1)
    smooth = np.where(hits > 0, hits, 0.5**halvings) / np.maximum(totals, 1)
    logs = np.where(totals > 0, np.log(np.maximum(smooth, 1e-300)), 0.0).sum(-1)
    orders = (totals > 0).sum(-1)
    geometric = np.exp(logs / np.maximum(orders, 1))
    length, reference = sums["bleu_length"], sums["bleu_reference"]
    brevity = np.where(length < reference, np.exp(1.0 - reference / np.maximum(length, 1e-9)), 1.0)
    some = (hits.sum(-1) > 0) & (orders == BLEU_ORDER)
    return np.asarray(np.where(some, 100.0 * brevity * geometric, 0.0))


ANSWER_METRICS = by_name(
    mean("pass_rate", "passed", "answers", True, "share", "answers that pass the checker"),
    mean("exact_match", "exact", "answers", True, "share", "exact match"),
    mean("token_f1", "f1", "answers", True, "share", "F1 of the answer's words"),
    mean("rouge1", "rouge1", "answers", True, "share", "ROUGE-1"),
    mean("rouge2", "rouge2", "answers", True, "share", "ROUGE-2"),
    mean("rougeL", "rougeL", "answers", True, "share", "ROUGE-L"),
    Metric("bleu", ("bleu_hits", "bleu_totals", "bleu_length", "bleu_reference"), bleu, True, "", "BLEU"),
    Metric("chrf", ("chrf_answer", "chrf_reference", "chrf_both"), chrf, True, "", "chrF"),
)
"""Of the answers that a language model writes to held-out prompts; each where its columns were measured."""
