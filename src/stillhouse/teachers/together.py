"""One process of several that write the same texts: its share of each round, and the wait for the others' shares.

Texts that go on from texts (a translation back, an answer to a question that was written) can only be asked for when the ones
before are all there.  So the processes go round by round.  One that has written its share waits while the others are at work
and, where nobody comes, leaves the rest to whoever goes on: it holds no lock while it waits, so two never wait for each other
for ever.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from ..data.prompting import Prompt
from ..locks import is_locked, locked
from ..models.continuous import Sampling
from ..progress import Watch
from .parts import part_name
from .texts import Texts
from .writer import Writer, write_share

PATIENCE = 60.0
"""Seconds without a new text, and without anybody at work on those that are missing, until one stops waiting."""
LOOK = 1.0
"""Seconds between two looks at what has come."""


class Enough(Exception):
    """There is nothing more that this process can write now."""


class Together:
    """Writes one process's share of what is asked."""

    def __init__(
        self, folder: Path, part: tuple[int, int], rounds: int, texts: Texts, seed: int, watch: Watch
    ) -> None:
        """
        Args:
            folder: where everybody's texts lie.
            part: (number from 1, of how many).
            rounds: how many times in all something is asked.
        """
        self.folder, self.part, self.rounds = folder, part, rounds
        self.keys: list[str] = []
        """Of every text that was asked for so far, whosever share it is."""
        self._texts, self._seed, self._watch = texts, seed, watch

    @property
    def written(self) -> int:
        """How many of the texts asked for so far are there."""
        return len(self.keys) - len(self._missing(self.keys))

    def write(
        self, writers: Sequence[Writer], prompts: Sequence[Prompt], sampling: Sampling, what: str
    ) -> None:
        """Write a share of one round, and wait for the others' shares if something goes on from them.

        Raises: Enough after the last round, and if the others do not come; ResourceError if another process works on this part.
        """
        mine = self.folder / part_name(self.part)
        mine.mkdir(parents=True, exist_ok=True)
        asked: list[str] = []
        with locked(mine):
            for writer in writers:
                asked += write_share(
                    writer, prompts, sampling, self._seed, self._texts, self._watch, what, self.part
                )
        self._watch.end()
        self.keys += asked
        self.rounds -= 1
        if not self.rounds or not self._came(asked, what):
            raise Enough

    def _came(self, keys: Sequence[str], what: str) -> bool:
        """Whether the others wrote theirs of `keys`, some time."""
        others = [part_name((number, self.part[1])) for number in range(1, self.part[1] + 1)]
        others.remove(part_name(self.part))
        missing = self._missing(keys)
        if missing:
            self._watch.note(f"  {what}: waiting for {len(missing):,} texts of the other parts")
        seen = time.monotonic()
        while missing:
            at_work = any(is_locked(self.folder / other) for other in others)
            left = self._missing(missing)
            if at_work or len(left) < len(missing):
                seen = time.monotonic()
            elif time.monotonic() > seen + PATIENCE:
                return False
            missing = left
            time.sleep(LOOK if missing else 0)
        return True

    def _missing(self, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that nobody has written yet."""
        self._texts.look()
        return [key for key in keys if key not in self._texts]
