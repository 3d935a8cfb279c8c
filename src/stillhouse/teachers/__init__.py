"""Teachers: whatever can say what the student should have said.

A teacher has one method, `signal(batch)`, which gives the soft targets of the batch's counted positions in their order.
A local model, its cache on disk, an API, a panel: each is just another one.
"""

from typing import Protocol

from ..tasks import Batch
from .targets import Crossed, Dense, Kept, Sampled, SoftTargets, TopK


class Teacher(Protocol):
    """Anything that can say what the student should have said."""

    def signal(self, batch: Batch) -> SoftTargets:
        """Soft targets of the batch's counted positions, row by row."""
        ...


__all__ = ["Crossed", "Dense", "Kept", "Sampled", "SoftTargets", "Teacher", "TopK"]
