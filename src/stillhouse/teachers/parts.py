"""What several processes do of one work: each does what falls to it by key, and keeps it in a folder of its own."""

from ..seeds import draw_seed

PART = "part-"


def part_name(part: tuple[int, int]) -> str:
    """Folder of what one process of several makes: (number from 1, of how many)."""
    return f"{PART}{part[0]}-of-{part[1]}"


def share_of(key: str, parts: int) -> int:
    """Which of so many processes does what is found by `key`, from 1."""
    return 1 + draw_seed(0, "part", key) % parts
