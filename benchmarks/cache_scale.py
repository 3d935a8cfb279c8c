"""A large synthetic cache: written, opened with all checksums verified, and read at random, with the memory that takes."""

import tempfile
import time
from pathlib import Path

import numpy as np
from common import arguments

from stillhouse.data.encode import Example
from stillhouse.teachers.cache import Entry, SoftTargetCache

META = {"teacher": "made up", "temperature": 1.0, "top_k": None, "samples": 30, "outcomes": 49_152}


def resident() -> float:
    """Megabytes of this process now."""
    with open("/proc/self/statm", encoding="ascii") as handle:
        return int(handle.read().split()[1]) * 4096 / 1e6


def main() -> None:
    asked = arguments(__doc__ or "", tokens=10_000_000, length=256, shard=128, reads=2000)
    draw = np.random.default_rng(0)
    rows = asked.tokens // asked.length
    labels = [-100] + [0] * asked.length
    with tempfile.TemporaryDirectory() as place:
        cache = SoftTargetCache(Path(place), META)
        base, most, first_shard, start = resident(), 0.0, 0.0, time.perf_counter()
        for first in range(0, rows, asked.shard):
            entries = []
            for number in range(first, min(first + asked.shard, rows)):
                width = draw.integers(4, 29, asked.length).astype(np.uint8)
                kept = draw.random(int(width.sum())) < 0.25
                columns = {
                    "width": width,
                    "ids": (49_152 * draw.random(len(kept)) ** 3).astype(np.uint16),
                    "parts": np.where(kept, draw.integers(3, 40, len(kept)), 2).astype(np.uint8),
                    "entropy": draw.random(1).astype(np.float32),
                }
                entries.append(Entry(Example(f"{number:032x}", "", [], labels, [0], 0), columns))
            cache.add(entries)
            first_shard = first_shard or resident() - base
            most = max(most, resident() - base)
        size = sum(path.stat().st_size for path in Path(place).glob("*.parquet"))
        print(
            f"wrote {rows * asked.length:,} tokens, {size / 1e6:,.0f} MB, in {time.perf_counter() - start:.0f} s"
        )
        print(
            f"  resident memory grew by at most {most:.0f} MB, {first_shard:.0f} MB of it with the first shard"
        )
        del cache
        base, start = resident(), time.perf_counter()
        opened = SoftTargetCache(Path(place), META)
        print(
            f"opened and verified in {time.perf_counter() - start:.1f} s; grew by {resident() - base:.0f} MB"
        )
        start, most = time.perf_counter(), 0.0
        for number in draw.integers(0, rows, asked.reads):
            opened.get(f"{int(number):032x}")
            most = max(most, resident() - base)
        rate = asked.reads / (time.perf_counter() - start)
        print(
            f"read {asked.reads:,} rows at random, {rate:,.0f} a second; grew by at most {most:.0f} MB since opening"
        )


if __name__ == "__main__":
    main()
