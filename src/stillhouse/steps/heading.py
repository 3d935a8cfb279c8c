"""A teacher without a masked-language-model head, whose layers alone are compared: sentence-transformers, and other bare encoders."""

from pathlib import Path
from typing import Any

from ..files import atomic_folder, hash_path
from ..models.load import missing_weights
from ..seeds import draw_seed
from ..tasks import Task

NO_HEAD = "the teacher has no masked-language-model head, so it says nothing of hidden tokens"


def with_head(task: Task, folder: Path, seed: int, place: Path) -> dict[str, Any] | None:
    """The teacher with a head drawn from the seed, which nobody asks and the student begins with; None if it has its own.

    Returns: a result of the stage `teacher`; its "silent" says that nothing it says means anything.
    """
    if not missing_weights(folder, task.auto_class):
        return None
    made = place / "model"
    model = task.load(folder, head_seed=draw_seed(seed, "head") % 2**32)
    with atomic_folder(made) as part:
        model.save_pretrained(part)
        task.tokenizer.save_pretrained(part)
    return {
        "folder": made.relative_to(place.parent).as_posix(),
        "identity": f"folder:{hash_path(made)}",
        "silent": NO_HEAD,
    }
