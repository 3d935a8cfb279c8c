"""How soft targets lie in a Parquet shard, and the bounds of what that loses.

**All outcomes** (`top_k: all`, or no fewer than there are), lists of numbers:

    log_p    N·V log-probabilities in the order of the outcomes, float16: |error| ≤ 2⁻¹¹ of the value

**Top-k**, bytes (see `gaps`), position by position, each position's outcomes in the order of the shard:

    ids_0, ids_1     gaps between the K outcomes
    steps_0, steps_1 how many steps of 1/16 nat an outcome's log-probability lies above the least one's, and one more; 0: −∞
    mass             a list of numbers: the log of what the K have together, float16

Steps give each outcome its share of `mass`: |error| ≤ 1/16 nat + 2⁻¹¹ of `mass`, and what the others have together stays exact to
float16, however sure the teacher is: a bound for each log-probability alone would move it, and with it the divergence that is
taken on K + 1 outcomes.  (From 4,095 nats below the most probable outcome on, log-probabilities are this.)

**Sampled**, bytes too:

    kept, kept_0, kept_1      outcomes with a share of their own
    shares                    their shares, in parts of a draw (see `losses.sparse.parts_of_a_draw`)
    drawn, drawn_0, drawn_1   outcomes drawn once: one draw each
    entropy                   a number: the mean over the N positions, float32; it moves the loss's value, not its gradient

Ids and shares come back exactly.  docs/performance.md has the bytes a token of each form and of what else was tried.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..losses.sparse import parts_of_a_draw
from ..recipe import Label
from .columns import Array, lists, numbers, pieces
from .gaps import Order, read_gaps, written_gaps
from .targets import Kept, Sampled, TopK

Arrays = dict[str, Array]
"""Of one example.  All outcomes: log_p.  Top-k: ids and steps of all positions, mass [N].  Sampled: width [N], and ids and parts of
all positions; entropy [1]."""

STEP = 1 / 16
"""Nats.  Twice as fine takes 8 bytes a token more of top-64; this fine, the gradient's error is 1/400 of what truncation makes."""
STEPS = 2**16 - 1
"""The most, of two bytes."""


def bytes_a_position(label: Label, outcomes: int) -> float:
    """What a position takes on disk, about, zstd included."""
    large = 1.1 if outcomes > 2**16 else 1.0
    if label.samples is not None:
        return 1.95 * math.pow(label.samples, 0.71) * large
    kept = _kept(label.top_k, outcomes)
    return 1.4 * kept if kept == outcomes else 2.0 + 1.7 * kept * large


def _kept(top_k: int | Literal["all"], outcomes: int) -> int:
    """K of each position."""
    return outcomes if top_k == "all" else min(outcomes, top_k)


def keeps_all(meta: dict[str, Any]) -> bool:
    """Whether such targets are of every outcome, and so need no ids."""
    return meta["top_k"] is not None and _kept(meta["top_k"], meta["outcomes"]) == meta["outcomes"]


def encoded(targets: Kept, counted: list[int], meta: dict[str, Any]) -> list[Arrays]:
    """A batch's targets, cut into its examples of `counted` positions each."""
    edges = np.cumsum([0, *counted]).tolist()
    spans = [slice(start, end) for start, end in pairwise(edges)]
    ids = targets.ids.cpu().numpy().astype(np.uint16 if meta["outcomes"] <= 2**16 else np.uint32)
    if isinstance(targets, TopK):
        log_p = targets.log_p.cpu().numpy()
        if keeps_all(meta):
            in_order = np.empty(log_p.shape, np.float16)
            np.put_along_axis(in_order, ids.astype(np.int64), log_p.astype(np.float16), -1)
            return [{"log_p": in_order[at].ravel()} for at in spans]
        steps, mass = _steps(log_p.astype(np.float64))
        return [{"ids": ids[at].ravel(), "steps": steps[at].ravel(), "mass": mass[at]} for at in spans]
    draws = int(meta["samples"])
    scaled = targets.shares.cpu() * (draws * parts_of_a_draw(draws))
    parts, entropy = scaled.round().to(torch.uint8).numpy(), targets.entropy.cpu().numpy()
    used = parts > 0
    return [
        {
            "width": used[at].sum(-1).astype(np.uint8),
            "ids": ids[at][used[at]],
            "parts": parts[at][used[at]],
            "entropy": np.array([entropy[at].sum(dtype=np.float64) / max(1, at.stop - at.start)], np.float32),
        }
        for at in spans
    ]


def _steps(log_p: Array) -> tuple[Array, Array]:
    """Log-probabilities [N, K] in steps above each position's least one, uint16, and the log of their sum [N], float16."""
    most = log_p.max(-1, keepdims=True)
    least = log_p.min(-1, keepdims=True, initial=np.inf, where=np.isfinite(log_p))
    least = np.maximum(least, most - (STEPS - 1) * STEP)
    steps = 1 + np.rint((log_p - least) / STEP).clip(0, STEPS - 1)
    mass = most[:, 0] + np.log(np.exp(log_p - most).sum(-1))
    return np.where(np.isfinite(log_p), steps, 0).astype(np.uint16), mass.clip(max=0).astype(np.float16)


def order_of(rows: Sequence[Arrays], meta: dict[str, Any]) -> Order | None:
    """In which a shard of these rows counts its gaps; None for targets that have none."""
    return None if keeps_all(meta) else Order.of((row["ids"] for row in rows), meta["outcomes"])


def columns(rows: Sequence[Arrays], meta: dict[str, Any], order: Order | None) -> dict[str, pa.Array]:
    """Rows as columns of a shard."""
    if order is None:
        return {"log_p": lists([row["log_p"] for row in rows])}
    return _columns_of_topk(rows, order) if meta["samples"] is None else _columns_of_draws(rows, meta, order)


def _columns_of_topk(rows: Sequence[Arrays], order: Order) -> dict[str, pa.Array]:
    ids, steps = (np.concatenate([row[name] for row in rows]) for name in ("ids", "steps"))
    positions = sum(len(row["mass"]) for row in rows)
    position = np.repeat(np.arange(positions), len(ids) // max(1, positions))
    _, gaps, places = written_gaps(position, ids, positions, order)
    steps = steps[places]
    ends = np.cumsum([len(row["ids"]) for row in rows])
    return {
        **{f"ids_{number}": pieces(plane, ends) for number, plane in enumerate(gaps)},
        "steps_0": pieces((steps & 255).astype(np.uint8), ends),
        "steps_1": pieces((steps >> 8).astype(np.uint8), ends),
        "mass": lists([row["mass"] for row in rows]),
    }


def _columns_of_draws(rows: Sequence[Arrays], meta: dict[str, Any], order: Order) -> dict[str, pa.Array]:
    width = np.concatenate([row["width"] for row in rows])
    position = np.repeat(np.arange(len(width)), width)
    ids, parts = (np.concatenate([row[name] for row in rows]) for name in ("ids", "parts"))
    ends = np.cumsum([len(row["width"]) for row in rows])
    once = parts == parts_of_a_draw(int(meta["samples"]))
    made: dict[str, pa.Array] = {}
    for name, some in (("kept", ~once), ("drawn", once)):
        count, planes, places = written_gaps(position[some], ids[some], len(width), order)
        last = np.cumsum([0, *count])[ends]
        made[name] = pieces(count.astype(np.uint8), ends)
        made |= {f"{name}_{number}": pieces(plane, last) for number, plane in enumerate(planes)}
        if name == "kept":
            made["shares"] = pieces(parts[some][places], last)
    return {**made, "entropy": numbers(np.concatenate([row["entropy"] for row in rows]))}


def decoded(row: Arrays, positions: int, meta: dict[str, Any], order: Order | None) -> Kept:
    """The targets of one example, from the values of a shard's columns."""
    if order is None:
        log_p = torch.from_numpy(row["log_p"].astype(np.float32).reshape(positions, meta["outcomes"]))
        return TopK(torch.arange(meta["outcomes"]).expand(log_p.shape), log_p, float(meta["temperature"]))
    return _topk(row, positions, meta, order) if meta["samples"] is None else _draws(row, meta, order)


def _topk(row: Arrays, positions: int, meta: dict[str, Any], order: Order) -> TopK:
    """Most probable first, of equal ones the lowest."""
    kept = _kept(meta["top_k"], meta["outcomes"])
    ids = read_gaps(np.full(positions, kept), [row[f"ids_{n}"] for n in range(order.planes)], order)
    steps = row["steps_1"].astype(np.int64) << 8 | row["steps_0"]
    both = ((STEPS - steps) << 32 | ids).reshape(positions, kept)
    both.sort(-1)
    steps = STEPS - (both >> 32)
    log_p = torch.from_numpy(np.where(steps > 0, STEP * steps, -np.inf)).log_softmax(-1)
    mass = torch.from_numpy(row["mass"].astype(np.float64)).unsqueeze(-1)
    return TopK(torch.from_numpy(both & 2**32 - 1), (log_p + mass).float(), float(meta["temperature"]))


def _draws(row: Arrays, meta: dict[str, Any], order: Order) -> Sampled:
    kept, drawn = (row[name].astype(np.int64) for name in ("kept", "drawn"))
    place = np.arange(int((kept + drawn).max(initial=1)))
    first = place < kept[:, None]
    second = ~first & (place < (kept + drawn)[:, None])
    wide, parts = np.zeros(first.shape, np.int64), np.zeros(first.shape, np.float32)
    for name, where, count in (("kept", first, kept), ("drawn", second, drawn)):
        wide[where] = read_gaps(count, [row[f"{name}_{number}"] for number in range(order.planes)], order)
    draws = int(meta["samples"])
    parts[first], parts[second] = row["shares"], parts_of_a_draw(draws)
    shares = torch.from_numpy(parts / np.float32(draws * parts_of_a_draw(draws)))
    entropy: Tensor = torch.full((len(kept),), float(row["entropy"][0]))
    return Sampled(torch.from_numpy(wide), shares, entropy, float(meta["temperature"]))
