"""How one example's soft targets lie in a Parquet row, and the bounds of what that loses.

    top-k      ids    N·K outcomes, position by position, most probable first
               log_p  N·K log-probabilities over the whole vocabulary, float16: |error| ≤ 2⁻¹¹ of the value
    sampled    width   N numbers of different outcomes drawn
               ids     these outcomes, position by position, in rising order
               counts  how often each was drawn: exact
               entropy N entropies, float16: |error| ≤ 2⁻¹¹ of the value; it moves the loss's value, never its gradient

Ids are 16-bit where the vocabulary allows it.  Parquet is left to choose dictionaries; zstd does the rest.
docs/performance.md has the bytes a token of each form.
"""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..recipe import Label
from .targets import Kept, Sampled, TopK

Arrays = dict[str, np.ndarray[Any, Any]]


def schema(meta: dict[str, Any]) -> dict[str, pa.DataType]:
    """Column -> type of the list that a row holds."""
    ids = pa.uint16() if meta["outcomes"] <= 2**16 else pa.uint32()
    if meta["samples"] is None:
        return {"ids": pa.list_(ids), "log_p": pa.list_(pa.float16())}
    return {
        "width": pa.list_(pa.uint8()),
        "ids": pa.list_(ids),
        "counts": pa.list_(pa.uint8()),
        "entropy": pa.list_(pa.float16()),
    }


def bytes_a_position(label: Label, outcomes: int) -> float:
    """What a position takes on disk, about, zstd included."""
    wide = 1.0 if outcomes <= 2**16 else 2.0
    if label.samples is not None:
        return 4.0 + 1.2 * wide * math.pow(label.samples, 0.75)
    kept = outcomes if label.top_k == "all" else min(outcomes, label.top_k)
    return kept * (1.8 * wide + 1.8)


def encoded(targets: Kept, counted: list[int], meta: dict[str, Any]) -> list[Arrays]:
    """A batch's targets, cut into its examples of `counted` positions each."""
    ends = np.cumsum(counted)[:-1]
    if isinstance(targets, TopK):
        columns = {
            "ids": np.split(_ids(targets.ids, meta), ends),
            "log_p": np.split(targets.log_p.cpu().numpy().astype(np.float16), ends),
        }
        return [
            {name: parts[number].ravel() for name, parts in columns.items()} for number in range(len(counted))
        ]
    counts = (targets.shares.cpu() * meta["samples"]).round().to(torch.uint8).numpy()
    ids, entropy = _ids(targets.ids, meta), targets.entropy.cpu().numpy().astype(np.float16)
    used = counts > 0
    made = []
    for start, end in zip([0, *ends.tolist()], [*ends.tolist(), len(ids)], strict=True):
        at = used[start:end]
        made.append(
            {
                "width": at.sum(-1).astype(np.uint8),
                "ids": ids[start:end][at],
                "counts": counts[start:end][at],
                "entropy": entropy[start:end],
            }
        )
    return made


def decoded(row: Arrays, positions: int, meta: dict[str, Any]) -> Kept:
    """The targets of one example."""
    temperature = float(meta["temperature"])
    if meta["samples"] is None:
        ids = torch.from_numpy(row["ids"].astype(np.int64).reshape(positions, -1))
        log_p = torch.from_numpy(row["log_p"].astype(np.float32).reshape(positions, -1))
        return TopK(ids, log_p, temperature)
    width = row["width"].astype(np.int64)
    used = np.arange(int(width.max(initial=1)))[None, :] < width[:, None]
    wide = np.zeros(used.shape, np.int64)
    shares = np.zeros(used.shape, np.float32)
    wide[used] = row["ids"]
    shares[used] = row["counts"].astype(np.float32) / int(meta["samples"])
    entropy = torch.from_numpy(row["entropy"].astype(np.float32))
    return Sampled(torch.from_numpy(wide), torch.from_numpy(shares), entropy, temperature)


def _ids(ids: Tensor, meta: dict[str, Any]) -> np.ndarray[Any, Any]:
    return ids.cpu().numpy().astype(np.uint16 if meta["outcomes"] <= 2**16 else np.uint32)
