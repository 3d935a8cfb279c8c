"""What it takes to write for the rows that a round chooses, before any is chosen."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..data.split import Prepared
from ..files import write_jsonl
from ..progress import Watch
from ..recipe import Recipe, parse_recipe
from ..recipe.plan import Rounds
from ..steps.fetching import fetch_models
from ..steps.unwritten import Foretelling
from ..steps.writing import FOLDER, made_rows, make_others, make_writer
from ..teachers.texts import Texts
from .check import with_rows
from .failing import fresh_rows, written_down
from .planned import plain


def writing_takes(recipe: Recipe, first: Path, watch: Watch, timed: bool = True) -> dict[str, Any] | None:
    """{"requests", "seconds", "dollars": at most, or None without a price} of the texts that are written in one round, or in its control.

    Rows of the pool in its seeded order, as the first control has them, stand for those that are chosen.

    Args: first: the folder of the run before any round; timed: whether models on this machine are measured, without which their
        seconds are left out.
    Returns: None if nobody writes for chosen rows.
    """
    wanted = recipe.plan
    assert isinstance(wanted, Rounds)
    if not wanted.writes:
        return None
    pooled = with_rows(recipe, plain(recipe), wanted.pool.model_dump(mode="json"))
    own = parse_recipe(pooled, recipe.name)
    rows, bare = fresh_rows(recipe, watch)[: wanted.rows], wanted.answers is not None
    models = fetch_models(own, first / "prepare", watch)
    writers = [make_writer(own, models), *make_others(own, models)]
    with (
        TemporaryDirectory() as scratch
    ):  # where nothing was asked yet: each round asks about rows of its own
        listed = Path(scratch) / "rows.jsonl"
        write_jsonl(listed, map(written_down, rows))
        generate = own.data.generate[: int(bare)]
        generate += [one.model_copy(update={"of": str(listed)}) for one in wanted.write]
        own = own.model_copy(update={"data": own.data.model_copy(update={"generate": generate})})
        desk = Foretelling(own, writers, models, Texts(Path(scratch) / FOLDER), watch)
        made_rows(desk, Prepared([] if bare else rows, [], rows if bare else [], {}, [], {}))
        if not timed:
            desk.here.clear()
        return desk.bill()
