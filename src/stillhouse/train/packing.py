"""When ragged rows share sequences in training, and how a batch of them is made.

Every term is the padded batch's, in value and gradient: what it takes from single positions does not change, what compares the
tokens of a text stays within `Layout.groups`, and what pools or averages over a row within `rows`.  Their numbers divide by
counted positions, rows, or a text's own tokens, never by the width of a batch.
"""

import torch
from transformers import PreTrainedModel

from ..data.encode import Example
from ..data.packing import packed
from ..tasks import Batch, Task, unwrap
from ..tasks.panel import Panel
from ..teachers import Teacher
from ..teachers.cache import CachedTeacher
from ..teachers.local import LocalTeacher


def can_pack(task: Task, student: PreTrainedModel, teacher: Teacher | None) -> bool:
    """Whether student and teacher say about a row that shares a sequence what they say about it alone."""
    beside = [teacher.model] if isinstance(teacher, LocalTeacher) else []
    if beside and isinstance(beside[0], Panel):
        return False  # its members may be chosen row by row
    if teacher is not None and not beside and not isinstance(teacher, CachedTeacher):
        return False  # somebody's own, which may read rows
    return all(task.packs(unwrap(model)) for model in (student, *beside))


def packed_batch(task: Task, examples: list[Example]) -> Batch:
    """One batch whose keys come in the order of its positions, which is how kept targets are found.

    Its `rows` [B, T] say which of these rows each token is of, −1 for padding.
    """
    sequences, order = packed(examples)
    batch = task.collate(sequences)
    (real,) = task.real(batch)
    sizes = torch.tensor([len(example.input_ids) for example in order])
    numbers = torch.arange(len(order)).repeat_interleave(sizes)
    rows = torch.full_like(batch["input_ids"], -1).masked_scatter(real, numbers)
    return {**batch, "keys": [example.key for example in order], "rows": rows}
