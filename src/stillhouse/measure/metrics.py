"""Metrics as functions of sums: per-row statistics are added up first, and only then made into a number.

A row is one independent unit of a data set: a text to be classified, or a window of text for a language
model.  Because a metric sees sums alone, resampling rows is one matrix product (see `intervals`).

Shapes: N rows, C classes, K confidence bins.  Statistics are [N], [N, C] or [N, K]; sums have the same shape
without N, or with leading dimensions in its place.  Logarithms are natural (nats) until a metric says bits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Rows = dict[str, FloatArray]
"""Column -> per-row statistics, [N] or [N, C], of one model on one data set."""

ECE_BINS = 15
FINE_BINS = 10 * ECE_BINS
"""Of a language model's confidences, which are too many to be kept; see `with_merged_bins`."""
TOP_CLASSES = 3
"""The teacher's likeliest classes that `top3` looks at, of a classifier that has more."""
SMALLEST = float(np.finfo(np.float64).eps)
"""A probability below this counts as this (36 nats) in logarithms, as in scikit-learn's log_loss."""


@dataclass(frozen=True)
class Metric:
    """One number about a model on a data set."""

    name: str
    columns: tuple[str, ...]
    """The statistics it needs."""
    value: Callable[[dict[str, FloatArray]], FloatArray]
    """Sums (each [...], or [..., C]) -> the metric [...]; NaN where it is undefined (0/0)."""
    higher_is_better: bool
    unit: str
    """ "bits", "nats", "share" (0 to 1), or "" for a plain number."""
    title: str
    """The name for people."""
    biased: bool = False
    """On few rows it is off in one direction on average; its intervals allow for that."""


def evaluate(metric: Metric, rows: Rows) -> float:
    """`metric` on all rows.

    Raises: DataError if there are no rows, a column is missing or not finite, or the metric is undefined.
    """
    value = value_or_none(metric, checked_columns(metric, rows))
    if value is None:
        raise DataError(undefined(metric))
    return value


def value_or_none(metric: Metric, columns: Rows) -> float | None:
    """`metric` on all rows of columns that are checked already; None where it is undefined or infinite."""
    value = float(metric.value({name: column.sum(axis=0) for name, column in columns.items()}))
    return value if np.isfinite(value) else None


def undefined(metric: Metric) -> str:
    """The sentence for a metric that has no finite value on the whole data set."""
    needs = ", ".join(metric.columns)
    return f"{metric.title} is undefined on these rows; look for zeros or huge values in the sums of {needs}."


def checked_columns(metric: Metric, rows: Rows) -> Rows:
    """The columns that `metric` needs, as float64 in Fortran order, all with the same number of rows.

    Raises: DataError that names the column, and the row (from 1) where a value is not finite.
    """
    columns: Rows = {}
    for name in metric.columns:
        if name not in rows:
            raise DataError(f"{metric.name} needs the column {name!r}; the rows only have {', '.join(rows)}.")
        columns[name] = np.asarray(rows[name], dtype=np.float64, order="F")
        if columns[name].ndim == 0:
            raise DataError(f"column {name!r} is a single number; give one value a row.")
        check_finite(columns[name], f"column {name!r}")
    lengths = {name: len(column) for name, column in columns.items()}
    if min(lengths.values()) == 0:
        raise DataError(f"there are no rows to measure {metric.title} on; give at least one.")
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns of {metric.name} must have equally many rows, not {lengths}.")
    return columns


def check_finite(values: FloatArray, what: str) -> None:
    """Raises: DataError with the first row (from 1) of `values`, [N, ...], that has a NaN or infinity."""
    if not np.isfinite(values).all():
        bad = values[~np.isfinite(values)][0]
        row = int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).argmax())
        raise DataError(f"{what} holds {bad} in row {row + 1}; repair or drop that row.")


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """numerator / denominator, NaN where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0))


def mean(name: str, part: str, whole: str, higher_is_better: bool, unit: str, title: str) -> Metric:
    """The metric sum(part) / sum(whole)."""

    def value(sums: dict[str, FloatArray]) -> FloatArray:
        return ratio(sums[part], sums[whole])

    return Metric(name, (part, whole), value, higher_is_better, unit, title)


def perplexity(sums: dict[str, FloatArray]) -> FloatArray:
    """exp(nats per token); undefined from 709 nats per token on, where it is more than a float can hold."""
    nats = ratio(sums["nll"], sums["tokens"])
    return np.asarray(np.exp(np.where(nats < 709.0, nats, np.nan)))


def in_bits(nats: FloatArray) -> FloatArray:
    """What is natural in here, as people read it."""
    return np.asarray(nats / np.log(2.0))


def bits_per_byte(sums: dict[str, FloatArray]) -> FloatArray:
    """Bits for each byte of the text that the counted tokens stand for; comparable between tokenizers."""
    return ratio(in_bits(sums["nll"]), sums["bytes"])


def bits_per_token(sums: dict[str, FloatArray]) -> FloatArray:
    """Bits for each counted token; comparable only where the tokens are the same ones."""
    return ratio(in_bits(sums["nll"]), sums["tokens"])


def macro_f1(sums: dict[str, FloatArray]) -> FloatArray:
    """Mean F1 over the classes that occur in the truth or in the predictions, as in scikit-learn."""
    f1 = ratio(2.0 * sums["tp"], sums["pred"] + sums["true"])
    occurs = ~np.isnan(f1)
    return ratio(np.where(occurs, f1, 0.0).sum(axis=-1), occurs.sum(axis=-1).astype(np.float64))


def ece(sums: dict[str, FloatArray]) -> FloatArray:
    """Expected calibration error: mean |confidence - accuracy| over the bins, weighted by their counts.

    On few rows it is too high by nature: an ideally calibrated model does not reach 0.
    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    gaps = np.abs(sums["bin_conf"] - sums["bin_acc"]).sum(axis=-1)
    return ratio(gaps, sums["bin_count"].sum(axis=-1))


def adaptive_ece(whole: str) -> Metric:
    """`ece` over bins that are equally full: where most answers are sure, equal-width bins are mostly empty.

    Args: whole: the column that counts the answers.
    """

    def value(sums: dict[str, FloatArray]) -> FloatArray:
        return ratio(np.abs(sums["even_conf"] - sums["even_acc"]).sum(axis=-1), sums[whole])

    columns, title = ("even_conf", "even_acc", whole), "adaptive calibration error"
    return Metric("adaptive_ece", columns, value, False, "share", title, biased=True)


def classification_rows(
    probabilities: ArrayLike, labels: ArrayLike, teacher_probabilities: ArrayLike | None = None
) -> Rows:
    """The statistics of CLASSIFICATION_METRICS, one row a text; what compares with a teacher only if one is given.

    Args: probabilities [N, C], each row summing to 1; labels [N], from 0 to C-1; the teacher's [N, C].
    `brier` sums over the classes (0 to 2; for two classes, twice the form that looks at one of them), `kl` is
    KL(teacher || student).  Raises: DataError with the first bad row (from 1).
    """
    student_NC, truth_N = checked_predictions(probabilities, labels)
    total, classes = student_NC.shape
    guess_N = student_NC.argmax(axis=1)
    correct_N = (guess_N == truth_N).astype(np.float64)
    one_hot = np.eye(classes)
    true_NC, pred_NC = one_hot[truth_N], one_hot[guess_N]
    confidence_N = student_NC.max(axis=1)
    bins_NK = np.eye(ECE_BINS)[confidence_bin(confidence_N, ECE_BINS)]
    rows = {
        "texts": np.ones(total),
        "correct": correct_N,
        "nll": -np.log(np.maximum(student_NC[np.arange(total), truth_N], SMALLEST)),
        "brier": ((student_NC - true_NC) ** 2).sum(axis=1),
        "confidence": confidence_N,
        "log_probs": np.log(np.maximum(student_NC, SMALLEST)),
        "tp": true_NC * pred_NC,
        "pred": pred_NC,
        "true": true_NC,
        "bin_count": bins_NK,
        "bin_conf": bins_NK * confidence_N[:, None],
        "bin_acc": bins_NK * correct_N[:, None],
    }
    if teacher_probabilities is not None:
        teacher_NC = checked_probabilities(teacher_probabilities, "the teacher's probabilities")
        if teacher_NC.shape != student_NC.shape:
            raise DataError(
                f"the teacher's table must be {student_NC.shape} like ours, not {teacher_NC.shape}."
            )
        if classes > TOP_CLASSES:
            rows["top3"] = shared_classes(student_NC, teacher_NC, TOP_CLASSES)
        rows["agree"] = (teacher_NC.argmax(axis=1) == guess_N).astype(np.float64)
        surprise_NC = np.log(np.maximum(teacher_NC, SMALLEST)) - np.log(np.maximum(student_NC, SMALLEST))
        rows["kl"] = (teacher_NC * surprise_NC).sum(axis=1)
        rows["reverse_kl"] = -(student_NC * surprise_NC).sum(axis=1)
        rows["rank"] = rank_correlation(teacher_NC, student_NC)
        rows["teacher_wrong"] = (teacher_NC.argmax(axis=1) != truth_N).astype(np.float64)
        rows["repeats"] = rows["agree"] * rows["teacher_wrong"]
    return with_adaptive_bins(rows)


def shared_classes(one_NC: FloatArray, other_NC: FloatArray, count: int) -> FloatArray:
    """Share of the other's `count` likeliest classes that are among as many of one's, [N]; of equals the first counts."""
    best_one, best_other = (
        np.argsort(-table, axis=1, kind="stable")[:, :count] for table in (one_NC, other_NC)
    )
    return np.asarray((best_other[:, :, None] == best_one[:, None, :]).any(axis=2).mean(axis=1))


def rank_correlation(one_NC: FloatArray, other_NC: FloatArray) -> FloatArray:
    """Spearman's rank correlation of two orders of the same C outcomes in each row, [N]; equal values share a rank."""

    def centred(values_NC: FloatArray) -> FloatArray:
        below_NC = (values_NC[:, :, None] > values_NC[:, None, :]).sum(axis=2)
        level_NC = (values_NC[:, :, None] == values_NC[:, None, :]).sum(axis=2)
        rank_NC = below_NC + (level_NC - 1) / 2.0
        return np.asarray(rank_NC - rank_NC.mean(axis=1, keepdims=True))

    a_NC, b_NC = centred(one_NC), centred(other_NC)
    spread_N = np.sqrt((a_NC**2).sum(axis=1) * (b_NC**2).sum(axis=1))
    return np.where(spread_N > 0, (a_NC * b_NC).sum(axis=1) / np.where(spread_N > 0, spread_N, 1.0), 0.0)


def with_adaptive_bins(rows: Rows) -> Rows:
    """`rows` of a classifier with the bins of `adaptive_ece`: ECE_BINS of them, equally full.

    Needs the whole data set at once, for where a bin ends depends on all confidences.  Equal confidences stay together.
    Source: Nguyen and O'Connor 2015, arXiv:1508.05154, section 4.1.
    """
    if "confidence" not in rows:
        return rows
    confidence_N = rows["confidence"]
    edges = np.quantile(confidence_N, np.linspace(0.0, 1.0, ECE_BINS + 1)[1:-1], method="inverted_cdf")
    bins_NK = np.eye(ECE_BINS)[np.searchsorted(edges, confidence_N, side="left")]
    return rows | {
        "even_conf": bins_NK * confidence_N[:, None],
        "even_acc": bins_NK * rows["correct"][:, None],
    }


def with_merged_bins(rows: Rows) -> Rows:
    """`rows` of a language model with the bins of `adaptive_ece` in the place of its FINE_BINS equal-width ones.

    Whole fine bins are put together until ECE_BINS are about equally full: each fine one goes where the middle of what it holds
    belongs, so that a merged one is off 1/15 of all tokens by at most half of what the fine ones at its two borders hold.  A fine
    bin that holds more is not cut; what cancels within it, 1/150 wide, is not seen.
    """
    if "fine_count" not in rows:
        return rows
    count_K = rows["fine_count"].sum(axis=0)
    middle_K = np.cumsum(count_K) - count_K / 2
    place_K = np.minimum(ECE_BINS * middle_K // max(count_K.sum(), 1.0), ECE_BINS - 1).astype(np.int64)
    merge_KE = np.eye(ECE_BINS)[place_K]
    kept = {name: column for name, column in rows.items() if not name.startswith("fine_")}
    return kept | {f"even_{name}": rows[f"fine_{name}"] @ merge_KE for name in ("conf", "acc")}


def class_prior_rows(class_counts: ArrayLike, labels: ArrayLike) -> Rows:
    """The floor of classification: whatever the text, it answers with the class shares of the training data.

    Args: class_counts [C], how often each class occurs in training; labels [N].
    It guesses the majority class, so its accuracy is that class's share.
    """
    counts_C = np.asarray(class_counts, dtype=np.float64)
    if not counts_C.sum() > 0:
        raise DataError("the class counts of the training data sum to 0; count its labels first.")
    return classification_rows(np.tile(counts_C / counts_C.sum(), (len(np.asarray(labels)), 1)), labels)


def unigram_rows(rows: Rows) -> Rows:
    """The floor of language modelling: the same windows as told by token frequencies alone."""
    missing = {"tokens", "bytes", "unigram_nll"} - set(rows)
    if missing:
        raise DataError(
            f"the floor needs the columns {', '.join(sorted(missing))}; measure them with the rest."
        )
    return {"tokens": rows["tokens"], "bytes": rows["bytes"], "nll": rows["unigram_nll"]}


def confidence_bin(confidence_N: FloatArray, bins: int) -> IntArray:
    """The bin, 0 to bins-1, of each confidence: bin k holds what is above k/bins and at most (k+1)/bins."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    above: IntArray = np.searchsorted(edges, confidence_N, side="left")
    return np.minimum(np.maximum(above - 1, 0), bins - 1)


def checked_predictions(probabilities: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, IntArray]:
    """Probabilities [N, C] and labels [N] that fit together.  Raises: DataError with the first bad row."""
    table_NC = checked_probabilities(probabilities, "the probabilities")
    return table_NC, checked_labels(labels, table_NC.shape)


def checked_labels(labels: ArrayLike, shape: tuple[int, ...]) -> IntArray:
    """Labels [N] as integers from 0 to C-1, for a table of `shape` (N, C).

    Raises: DataError with the first bad row (from 1).
    """
    truth_N = np.asarray(labels)
    if truth_N.shape != shape[:1]:
        raise DataError(f"the labels have the shape {truth_N.shape}; give one to each of {shape[0]} rows.")
    if truth_N.dtype.kind not in "biuf":
        raise DataError(f"the labels are of type {truth_N.dtype}; give the number of the class, from 0.")
    bad = ~((truth_N >= 0) & (truth_N < shape[1]) & (truth_N == np.floor(truth_N)))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"the label in row {row + 1} is {truth_N[row]}; it must be 0 to {shape[1] - 1}.")
    return np.array(truth_N, dtype=np.int64)


def checked_probabilities(probabilities: ArrayLike, what: str) -> FloatArray:
    """A table [N, C] of probabilities as float64, each row scaled to sum to 1.

    Raises: DataError if a row is negative or misses 1 by more than 1 % (half precision misses it by less).
    """
    table_NC = np.asarray(probabilities, dtype=np.float64)
    if table_NC.ndim != 2 or table_NC.size == 0:
        raise DataError(f"{what} have the shape {table_NC.shape}; give a table of rows and classes.")
    check_finite(table_NC, f"the table of {what.removeprefix('the ')}")
    bad = (table_NC < 0).any(axis=1) | (np.abs(table_NC.sum(axis=1) - 1.0) > 1e-2)
    if bad.any():
        row = int(bad.argmax()) + 1
        raise DataError(f"{what} in row {row} are negative or do not sum to 1; apply softmax first.")
    return np.asarray(table_NC / table_NC.sum(axis=1, keepdims=True))


def by_name(*metrics: Metric) -> dict[str, Metric]:
    """The table name -> metric."""
    return {metric.name: metric for metric in metrics}


ECE = Metric(
    "ece", ("bin_count", "bin_conf", "bin_acc"), ece, False, "share", "calibration error", biased=True
)

LM_METRICS = by_name(
    Metric("perplexity", ("nll", "tokens"), perplexity, False, "", "perplexity"),
    Metric("bits_per_byte", ("nll", "bytes"), bits_per_byte, False, "bits", "bits per byte"),
    mean("token_accuracy", "correct", "tokens", True, "share", "token accuracy"),
    mean("brier", "brier", "tokens", False, "", "Brier score of the next token"),
    ECE,
    adaptive_ece("tokens"),
    mean("teacher_agreement", "agree", "tokens", True, "share", "agreement with the teacher"),
    mean("teacher_top5", "top5", "tokens", True, "share", "overlap with the teacher's top 5"),
    mean("teacher_rank", "rank", "tokens", True, "", "rank correlation over the teacher's top 10"),
    mean("teacher_kl", "kl", "tokens", False, "nats", "divergence from the teacher"),
    mean("teacher_reverse_kl", "reverse_kl", "tokens", False, "nats", "reverse divergence from the teacher"),
)
"""Columns, sums over the counted tokens of a window: tokens, bytes (of their text), nll (nats), correct (top
token is the true next one), brier, bin_count, bin_conf and bin_acc [N, 15] (confidences of the top token), even_conf and
even_acc [N, 15] of `with_merged_bins`, agree (top
token is the teacher's), top5 (share of the teacher's five likeliest tokens that are the student's), rank (Spearman), kl
(KL(teacher || student), nats), reverse_kl and, for the floor, unigram_nll (nats)."""

MASKED_METRICS = by_name(
    Metric("bits_per_token", ("nll", "tokens"), bits_per_token, False, "bits", "bits per hidden token"),
    Metric("perplexity", ("nll", "tokens"), perplexity, False, "", "pseudo-perplexity"),
    *(metric for name, metric in LM_METRICS.items() if name not in ("perplexity", "bits_per_byte", "brier")),
    mean("brier", "brier", "tokens", False, "", "Brier score of the hidden token"),
)
"""Columns: those of LM_METRICS but bytes, sums over the hidden tokens of a row."""

CLASSIFICATION_METRICS = by_name(
    mean("accuracy", "correct", "texts", True, "share", "accuracy"),
    Metric("macro_f1", ("tp", "pred", "true"), macro_f1, True, "share", "macro F1", True),
    mean("nll", "nll", "texts", False, "nats", "negative log-likelihood"),
    mean("brier", "brier", "texts", False, "", "Brier score"),
    ECE,
    adaptive_ece("texts"),
    mean("teacher_agreement", "agree", "texts", True, "share", "agreement with the teacher"),
    mean("teacher_top3", "top3", "texts", True, "share", "overlap with the teacher's top 3"),
    mean("teacher_rank", "rank", "texts", True, "", "rank correlation with the teacher"),
    mean("teacher_kl", "kl", "texts", False, "nats", "divergence from the teacher"),
    mean("teacher_reverse_kl", "reverse_kl", "texts", False, "nats", "reverse divergence from the teacher"),
)
"""Columns: those of `classification_rows`, and of `with_adaptive_bins`; `top3` only where there are more than three classes."""

TASK_METRICS = {
    "causal_lm": LM_METRICS,
    "seq2seq": LM_METRICS,
    "masked_lm": MASKED_METRICS,
    "classification": CLASSIFICATION_METRICS,
}
"""Task -> its metrics, for whoever reads finished runs without the task's own code, which needs torch."""
