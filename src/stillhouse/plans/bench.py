"""Where the runs of a plan are made: one after the other, each in its own folder, sharing what is the same."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..asking import LEDGER as ASKED
from ..asking import Ledger
from ..asking.ledger import RUNS
from ..errors import StillhouseError
from ..files import MANIFEST, atomic_folder, link_or_copy, read_json, write_json
from ..forecast import foretell
from ..judge import LEDGER as JUDGED
from ..pipeline import DONE, Results, Stage, run_pipeline
from ..progress import Watch
from ..recipe import Api, Recipe, parse_recipe
from ..recipe.api import tell_apart
from ..recipe.plan import RUN
from ..stages import STAGES
from ..static import check_shape
from ..steps.writing import FOLDER as WRITTEN
from ..store import SAID
from ..teachers.texts import pool_texts
from .planned import INITIAL, Planned

MODELS, MACHINE = "models", "machine.json"


def _not_predicted(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """Only what would stop the run later, now that the teacher's files are there: a shape that it cannot have."""
    check_shape(
        recipe.student, Path(results["prepare"]["teacher"]["folder"]), recipe.task, recipe.data.max_length
    )
    return {}


UNPREDICTED = Stage(
    "plan",
    _not_predicted,
    reads=("task", "student", "data.max_length"),
    after=("prepare.teacher",),
    shared=False,
)
"""In the place of the stage that predicts; its result is the same."""


class Bench:
    """A plan's folder: runs/NAME are run folders, models/NAME the students that other runs start from or learn from."""

    def __init__(self, folder: Path, watch: Watch) -> None:
        self.folder, self.watch = folder, watch
        self._asked: tuple[list[Api], list[Api]] = [], []
        """Whom its runs ask, and who judges their answers: each in a ledger of all runs."""

    def meet(self, runs: Iterable[Planned]) -> None:
        """Let the runs' APIs know of each other: of models of one name at two addresses neither answers for the other."""
        for one in runs:
            self._meet(parse_recipe(one.values, f"run {one.name}"))

    def _meet(self, recipe: Recipe) -> None:
        judge = recipe.evaluate.judge
        own = recipe.asked, [] if judge is None else [judge.api]
        for some, all_of_them in zip(own, self._asked, strict=True):
            all_of_them += [
                one
                for one in some
                if (one.model, one.base_url) not in {(api.model, api.base_url) for api in all_of_them}
            ]
            tell_apart(some, all_of_them)

    def place(self, name: str) -> Path:
        """The folder of a run."""
        return self.folder / RUNS / name

    def recipe(self, one: Planned) -> Recipe:
        """Its recipe, with `run:NAME` made into folders.  The runs that it needs must be done."""
        values = self._located(one.values)
        recipe = parse_recipe(values, f"run {one.name}")
        self._meet(recipe)
        return recipe

    def run(
        self,
        one: Planned,
        stages: Sequence[Stage] = STAGES,
        until: str | None = None,
        watch: Watch | None = None,
    ) -> Results:
        """Run it, or the rest of it.  Its time is predicted only if `until` asks for that, or did so before.

        Raises: what a stage raises, with the run's name before it.
        """
        place = self.place(one.name)
        self._decide_once(place)
        (self.folder / SAID).mkdir(exist_ok=True)  # a model says the same in all runs
        if until != "plan" and not (place / "plan" / "plan.json").exists():
            stages = [UNPREDICTED if stage.name == "plan" else stage for stage in stages]
        others = [other for other in sorted((self.folder / RUNS).iterdir()) if other != place]
        if one.values["data"].get("generate"):  # nobody writes the same answer twice
            for other in others:
                pool_texts(other / WRITTEN, place / WRITTEN)
        try:
            recipe = self.recipe(one)
            self._pay_once(recipe)
            done = run_pipeline(
                recipe, stages, place, watch or Named(self.watch, one.name), until, beside=others
            )
        except StillhouseError as error:
            raise type(error)(f"run {one.name}: {error}") from error
        if not (self.folder / MACHINE).exists() and (place / MACHINE).exists():
            shutil.copyfile(place / MACHINE, self.folder / MACHINE)
        return done

    def plan(self, one: Planned) -> None:
        """Predict what it takes, without buying texts that an API is to write.  Raises: as `run`."""
        self._decide_once(self.place(one.name))
        try:
            recipe = self.recipe(one)
            self._pay_once(recipe)
            foretold = foretell(recipe, self.place(one.name), Named(self.watch, one.name))
        except StillhouseError as error:
            raise type(error)(f"run {one.name}: {error}") from error
        if not foretold:
            self.run(one, until="plan")

    def student(self, name: str, initial: bool = False) -> Path:
        """The student of a finished run (or as it began) under a name of its own, for others to refer to."""
        return self._published(
            name, "initial" if initial else "train", f"{name}-initial" if initial else name
        )

    def teacher(self, name: str) -> Path:
        """The fine-tuned teacher of a finished run, under a name of its own."""
        return self._published(name, "teacher", f"{name}-teacher")

    def _published(self, name: str, stage: str, called: str) -> Path:
        source = self.place(name) / read_json(self.place(name) / stage / DONE)["result"]["folder"]
        target = self.folder / MODELS / called
        if not target.exists() or (target / MANIFEST).read_bytes() != (source / MANIFEST).read_bytes():
            with atomic_folder(target) as part:
                shutil.copytree(
                    source,
                    part,
                    copy_function=link_or_copy,
                    ignore=shutil.ignore_patterns(MANIFEST),
                    dirs_exist_ok=True,
                )
        return target

    def _located(self, values: Any) -> Any:
        """`model: run:NAME` -> the folder of that student."""
        if isinstance(values, list):
            return [self._located(value) for value in values]
        if not isinstance(values, dict):
            return values
        made = {}
        for key, value in values.items():
            if key == "model" and isinstance(value, str) and value.startswith(RUN):
                name = value.removeprefix(RUN)
                folder = self.student(name.removesuffix(INITIAL), name.endswith(INITIAL))
                made[key] = str(folder.absolute())
            else:
                made[key] = self._located(value)
        return made

    def _decide_once(self, place: Path) -> None:
        """What is measured once a run (whether bfloat16 pays) is measured once for all runs of a plan."""
        place.mkdir(parents=True, exist_ok=True)
        if (self.folder / MACHINE).exists() and not (place / MACHINE).exists():
            write_json(place / MACHINE, read_json(self.folder / MACHINE))

    def _pay_once(self, recipe: Recipe) -> None:
        """What is asked and paid (see `ledger_of`) is written down in one place for all runs of a plan."""
        judge = recipe.evaluate.judge
        asks = bool(recipe.teacher.apis or recipe.data.apis) or recipe.writing_api is not None
        for needed, name in ((asks, ASKED), (judge is not None and judge.api is not None, JUDGED)):
            if needed:
                Ledger(self.folder / name).close()


class Named:
    """Says whose lines they are."""

    def __init__(self, watch: Watch, name: str) -> None:
        self._watch, self._name = watch, name

    def note(self, text: str) -> None:
        """'[middle] train'."""
        self._watch.note(f"[{self._name}] {text.strip()}")

    def step(self, what: str, done: int, total: int, extra: str = "") -> None:
        """'[middle] train 5/40'."""
        self._watch.step(f"[{self._name}] {what}", done, total, extra)

    def end(self) -> None:
        """As it is."""
        self._watch.end()
