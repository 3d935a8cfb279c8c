"""Near duplicates among many rows: seconds, recall and precision on planted pairs, whose similarity is known exactly."""

import resource
import time

import numpy as np
from common import arguments

from stillhouse.data.filters.near import near_twins
from stillhouse.data.filters.texts import words

WORDS = 20_000


def main() -> None:
    asked = arguments(__doc__ or "", rows=100_000, planted=5_000, words=60, threshold=0.8, seed=0)
    draw = np.random.default_rng(asked.seed)
    names = [f"w{number}" for number in range(WORDS)]
    shares = 1 / np.arange(1, WORDS + 1)
    lengths = draw.integers(asked.words // 3, asked.words * 2, asked.rows - asked.planted)
    tokens = draw.choice(WORDS, int(lengths.sum()), p=shares / shares.sum())
    base = [[names[token] for token in some] for some in np.split(tokens, np.cumsum(lengths)[:-1])]
    copied = draw.choice(len(base), asked.planted, replace=False)
    copies = [_edited(base[place], draw, names) for place in copied]
    texts = [" ".join(row) for row in [*base, *copies]]
    similar = [_jaccard(texts[place], texts[len(base) + number]) for number, place in enumerate(copied)]
    wanted = {len(base) + number for number, value in enumerate(similar) if value >= asked.threshold}

    start, busy = time.perf_counter(), time.process_time()
    twins = near_twins(texts, asked.threshold)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy

    found = {number for number, twin in enumerate(twins) if twin is not None}
    right = {
        number for number in found if _jaccard(texts[number], texts[twins[number] or 0]) >= asked.threshold
    }
    print(
        f"{len(texts):,} rows in {seconds:.1f} s ({busy:.1f} s of processor time), {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most"
    )
    print(
        f"{len(wanted):,} planted pairs at or above {asked.threshold} (of {asked.planted:,} made): recall {len(found & wanted) / len(wanted):.4f}"
    )
    print(
        f"{len(found):,} rows dropped: precision {len(right) / len(found):.4f} (by exact Jaccard similarity)"
    )


def _edited(row: list[str], draw: np.random.Generator, names: list[str]) -> list[str]:
    """Up to a tenth of the words replaced."""
    found = list(row)
    for place in draw.choice(len(row), int(draw.integers(0, len(row) // 10 + 1)), replace=False):
        found[place] = names[int(draw.integers(WORDS))]
    return found


def _jaccard(one: str, other: str) -> float:
    sets = [{tuple(w[at : at + 3]) for at in range(len(w) - 2)} for w in (words(one), words(other))]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


if __name__ == "__main__":
    main()
