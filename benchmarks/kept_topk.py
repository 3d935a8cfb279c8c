"""How top-k targets could lie on disk: bytes a token, what each form loses, and microseconds a position to read it back.

Teacher, student and texts as in draws.py.  Errors of the gradient on the logits, of what is kept and of keeping only that, as shares
of the dense gradient's square; of the divergences taken on K + 1 outcomes, nats.
"""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import arguments
from draws import some_rows, states
from torch import Tensor

from models import smollm2
from stillhouse.losses.sparse import topk_log_probs
from stillhouse.models.load import load_tokenizer
from stillhouse.tasks import make_task
from stillhouse.teachers.cache import GROUP_VALUES
from stillhouse.teachers.codec import columns, decoded, encoded, order_of
from stillhouse.teachers.columns import Array, lists, pieces
from stillhouse.teachers.gaps import Order, written_gaps
from stillhouse.teachers.shards import LEVEL, Block
from stillhouse.teachers.targets import TopK

Columns = dict[str, pa.Array]
SPLIT = ["log_p.list.element"]


def table_bytes(
    table: Columns, in_group: int, level: int = LEVEL, split: Any = False, **options: Any
) -> bytes:
    """A Parquet file of these columns."""
    file = io.BytesIO()
    pq.write_table(
        pa.table(table), file, compression="zstd", compression_level=level, write_statistics=False,
        row_group_size=in_group, use_byte_stream_split=split, **{"use_dictionary": False, **options},
    )  # fmt: skip
    return file.getvalue()


def of_two_bytes(values: Array, ends: Array, name: str) -> Columns:
    """All low bytes, and all high ones."""
    return {
        f"{name}_{n}": pieces((values >> 8 * n & 255).astype(np.uint8).ravel(), ends * values.shape[1])
        for n in (0, 1)
    }


def rounded(log_p: Array, bits: int) -> Array:
    """To so many bits after the first one."""
    part, power = np.frexp(log_p)
    return np.ldexp(np.rint(part * 2.0 ** (bits + 1)) / 2.0 ** (bits + 1), power).astype(np.float16)


def above_the_least(log_p: Array, step: float) -> tuple[Array, Array, Array]:
    """(log-probabilities told in steps above each position's least one and its mass, the steps, the mass)."""
    steps = np.rint((log_p - log_p.min(-1, keepdims=True)) / step)
    mass = np.log(np.exp(log_p).sum(-1, keepdims=True)).clip(max=0).astype(np.float16)
    told = torch.log_softmax(torch.from_numpy(steps * step), -1).numpy() + mass
    return told, steps.astype(np.uint16), mass


class Lost:
    """What a form loses, over all positions."""

    def __init__(self, p: Tensor, q: Tensor, ids: Tensor) -> None:
        """Args: p, q: [N, V] of teacher and student; ids: [N, K], the kept outcomes."""
        self.p, self.q = p.gather(-1, ids).double(), q.gather(-1, ids).double()
        self.dense = float((q - p).square().sum())
        rest = [values.scatter(-1, ids, 0.0) for values in (p, q)]
        self.tail_q, self.squares = (values.double().sum(-1) for values in (rest[1], rest[1].square()))
        spread = rest[1] * (self.tail(self.p) / self.tail_q).float().unsqueeze(-1)
        self.truncation = float((rest[0] - spread).square().sum()) / self.dense

    @staticmethod
    def tail(p: Tensor) -> Tensor:
        """[N, K] -> [N], at least what the losses take it for."""
        return (1 - p.sum(-1)).clamp_min(torch.finfo(torch.float32).eps)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """[N], KL(p ‖ q) on K + 1 outcomes."""
        tails = self.tail(p), self.tail(q)
        return (p * (p / q).log()).sum(-1) + tails[0] * (tails[0] / tails[1]).log()

    def of(self, log_p: Array) -> str:
        """Args: log_p: [N, K] as told."""
        told = torch.from_numpy(log_p.astype(np.float64)).exp()
        off = (told - self.p).square().sum(-1)
        off += ((self.tail(told) - self.tail(self.p)) / self.tail_q).square() * self.squares
        worst = (told.log() - self.p.log()).abs().max()
        reverse = (self.divergence(self.q, told) - self.divergence(self.q, self.p)).abs().mean()
        return (
            f"error at most {worst:.4f} nats, gradient {off.sum() / self.dense:.1e}, "
            f"KL {self.divergence(self.p, told).mean():.1e}, reverse KL moved by {reverse:.1e}"
        )


def microseconds(read: Callable[[], Any], positions: int) -> float:
    """A position, the best of five."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        read()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / positions


def read_plain(file: bytes, k: int) -> None:
    """Lists of ids and float16, row group by row group, as they were read."""
    opened = pq.ParquetFile(io.BytesIO(file))
    for group in range(opened.num_row_groups):
        block = Block.of(_with_rows(opened.read_row_group(group)), None)
        for row in range(len(block.positions)):
            values = block.row(row)
            ids, log_p = values["ids"].astype(np.int64), values["log_p"].astype(np.float32)
            TopK(torch.from_numpy(ids).reshape(-1, k), torch.from_numpy(log_p).reshape(-1, k), 1.0)


def read_ours(file: bytes, counted: list[int], meta: dict[str, Any], order: Order) -> None:
    opened = pq.ParquetFile(io.BytesIO(file))
    number = 0
    for group in range(opened.num_row_groups):
        block = Block.of(_with_rows(opened.read_row_group(group)), order)
        for row in range(len(block.positions)):
            decoded(block.row(row), counted[number], meta, order)
            number += 1


def _with_rows(table: pa.Table) -> pa.Table:
    rows = pa.array(range(len(table)), pa.int32())
    return table.append_column("key", rows).append_column("positions", rows)


@torch.no_grad()
def main() -> None:
    asked = arguments(__doc__ or "", rows=8, length=256, top=64, most=2000)
    folder, k = smollm2(), asked.top
    task = make_task("causal_lm", load_tokenizer(folder), asked.length)
    examples = some_rows(task, asked.rows)
    theirs, head = states(task, folder, examples, 1)
    mine, _ = states(task, folder, examples, 2)
    counted, hidden = [one.counted for one in examples], torch.cat(theirs)
    positions, ends = len(hidden), np.cumsum(counted)
    in_group = max(1, GROUP_VALUES * len(examples) // (positions * k))
    ids, log_p = topk_log_probs(hidden @ head.T, k)

    def cut(values: Array) -> pa.Array:
        return lists([part.ravel() for part in np.split(values, ends[:-1])])

    meta = {"temperature": 1.0, "outcomes": task.outcomes, "top_k": k, "samples": None}
    rows = encoded(TopK(ids, log_p, 1.0), counted, meta)
    order = order_of(rows, meta)
    assert order is not None
    where, whole = np.repeat(np.arange(positions), k), ids.numpy().ravel()
    _, planes, places = written_gaps(where, whole, positions, order)
    gaps = {f"ids_{n}": pieces(plane, ends * k) for n, plane in enumerate(planes)}
    sorted_ids, ours = ids.flatten()[places].view(-1, k), log_p.flatten()[places].view(-1, k).double().numpy()
    some = slice(0, asked.most)  # [N, V] three times over is all the memory there is
    p, q = (torch.softmax(of[some] @ head.T, -1) for of in (hidden, torch.cat(mine)))
    lost = Lost(p, q, sorted_ids[some])
    table = len(order.packed())
    print(
        f"{positions} tokens, top-{k}; the order of a shard takes {table} bytes, whatever the tokens; "
        f"truncation alone: gradient {lost.truncation:.4f}"
    )

    def show(name: str, file: bytes, told: Array) -> None:
        print(f"  {name:<58} {len(file) / positions:6.1f} bytes a token   {lost.of(told[some])}", flush=True)

    by_rank = {"ids": cut(ids.numpy().astype(np.uint16)), "log_p": cut(log_p.numpy().astype(np.float16))}
    plain = table_bytes(by_rank, in_group, use_dictionary=True)
    half = ours.astype(np.float16)
    show("ids by rank, float16 (as it was)", plain, half)
    wide = {**by_rank, "ids": cut(ids.numpy().astype(np.int32))}
    show("the same, split into planes", table_bytes(wide, in_group, split=[*SPLIT, "ids.list.element"]), half)
    show("gaps, float16", table_bytes({**gaps, "log_p": cut(half)}, in_group), half)
    for bits in (10, 8, 6, 5):
        told = rounded(ours, bits)
        file = table_bytes({**gaps, "log_p": cut(told)}, in_group, split=SPLIT)
        show(f"gaps, float16 of {bits} bits, split into planes", file, told)
    for step in (1 / 16, 1 / 8):
        steps = np.rint(-ours / step).astype(np.int64)
        file = table_bytes({**gaps, **of_two_bytes(steps, ends, "steps")}, in_group)
        show(f"gaps, steps of {step} from 0", file, -step * steps)
    for root in (64, 32):
        steps = np.rint(np.sqrt(-ours) * root).astype(np.int64)
        file = table_bytes({**gaps, **of_two_bytes(steps, ends, "steps")}, in_group)
        show(f"gaps, squares of steps of 1/{root}", file, -((steps / root) ** 2))
    for step in (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4):
        told, steps, mass = above_the_least(ours, step)
        made = {**gaps, **of_two_bytes(steps.astype(np.int64), ends, "steps"), "mass": cut(mass)}
        show(f"gaps, steps of {step} above the least, and mass", table_bytes(made, in_group), told)
    kept = columns(rows, meta, order)
    for level in (3, 9, 15, 19):
        start = time.perf_counter()
        size = len(table_bytes(kept, in_group, level)) / positions
        print(
            f"  as kept, zstd {level}: {size:.1f} bytes a token, written in {time.perf_counter() - start:.2f} s"
        )
    file = table_bytes(kept, in_group)
    old, new = (
        microseconds(read, positions)
        for read in (lambda: read_plain(plain, k), lambda: read_ours(file, counted, meta, order))
    )
    print(f"  read: {old:.1f} microseconds a position as it was, {new:.1f} as kept")


if __name__ == "__main__":
    main()
