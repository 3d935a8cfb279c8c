"""How soft targets lie in a Parquet shard, and the bounds of what that loses.

**Top-k**, lists of numbers:

    ids     N·K outcomes, position by position, most probable first
    log_p   N·K log-probabilities over the whole vocabulary, float16: |error| ≤ 2⁻¹¹ of the value

**Sampled**, bytes (see `gaps`):

    kept, kept_0, kept_1      outcomes with a share of their own
    shares                    their shares, in parts of a draw (see `losses.sparse.parts_of_a_draw`)
    drawn, drawn_0, drawn_1   outcomes drawn once: one draw each
    entropy                   a number: the mean over the N positions, float32; it moves the loss's value, not its gradient

Ids and shares come back exactly.  docs/performance.md has the bytes a token of each form.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

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
"""Of one example.  Top-k: ids, log_p.  Sampled: width [N], and ids and parts of all positions; entropy [1]."""


def bytes_a_position(label: Label, outcomes: int) -> float:
    """What a position takes on disk, about, zstd included."""
    large = outcomes > 2**16
    if label.samples is not None:
        return 1.95 * math.pow(label.samples, 0.71) * (1.1 if large else 1.0)
    kept = outcomes if label.top_k == "all" else min(outcomes, label.top_k)
    return kept * (5.4 if large else 3.6)


def encoded(targets: Kept, counted: list[int], meta: dict[str, Any]) -> list[Arrays]:
    """A batch's targets, cut into its examples of `counted` positions each."""
    edges = np.cumsum([0, *counted]).tolist()
    spans = [slice(start, end) for start, end in pairwise(edges)]
    ids = targets.ids.cpu().numpy().astype(np.uint16 if meta["outcomes"] <= 2**16 else np.uint32)
    if isinstance(targets, TopK):
        log_p = targets.log_p.cpu().numpy().astype(np.float16)
        return [{"ids": ids[at].ravel(), "log_p": log_p[at].ravel()} for at in spans]
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


def order_of(rows: Sequence[Arrays], meta: dict[str, Any]) -> Order | None:
    """In which a shard of these rows counts its gaps; None for targets that have none."""
    return None if meta["samples"] is None else Order.of((row["ids"] for row in rows), meta["outcomes"])


def columns(rows: Sequence[Arrays], meta: dict[str, Any], order: Order | None) -> dict[str, pa.Array]:
    """Rows as columns of a shard."""
    if order is None:
        return {name: lists([row[name] for row in rows]) for name in ("ids", "log_p")}
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
    temperature = float(meta["temperature"])
    if order is None:
        ids = torch.from_numpy(row["ids"].astype(np.int64).reshape(positions, -1))
        log_p = torch.from_numpy(row["log_p"].astype(np.float32).reshape(positions, -1))
        return TopK(ids, log_p, temperature)
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
    entropy: Tensor = torch.full((positions,), float(row["entropy"][0]))
    return Sampled(torch.from_numpy(wide), shares, entropy, temperature)
