"""A seed of its own for everything that draws."""

import hashlib


def draw_seed(seed: int, *what: int | str) -> int:
    """A function of the run's seed and of what draws; 63 bits."""
    text = ":".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
