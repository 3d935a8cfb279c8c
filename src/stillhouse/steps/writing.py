"""Rows that a language model writes: `data.generate`, kind by kind, each going on from what the ones before it made."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..asking import LEDGER, Ledger, ledger_of
from ..data import choosing, templates, written
from ..data.choosing import Choice
from ..data.content import content_key
from ..data.encode import control_pieces, without_control
from ..data.filters import sift
from ..data.formats import Row
from ..data.prompting import Prompt
from ..data.sets import standing_in
from ..data.split import Prepared
from ..data.written import Ask
from ..errors import DataError, RecipeError
from ..models.continuous import Sampling
from ..models.load import load_tokenizer
from ..progress import Watch
from ..recipe import Filter
from ..recipe import generate as kinds
from ..teachers.api_judge import Scored
from ..teachers.api_writer import ApiWriter, Lost, Said, cut_off, paid_to
from ..teachers.texts import Texts
from ..teachers.together import Together
from ..teachers.writer import LocalWriter, TargetWriter, Writer, write_kept
from .judging import scored
from .questions import refuse_plain_text

FOLDER = "written"
"""In the run folder, beside the stages: what was written is found by content, and stays when the recipe changes."""


def write_rows(recipe: Any, rows: Prepared, models: dict[str, Any], place: Path, watch: Watch) -> Prepared:
    """`rows` with those that `data.generate` asks for among them.  Returns: `rows` itself if nothing is asked for."""
    if not recipe.data.generate:
        return rows
    desk = make_desk(recipe, models, Texts(place.parent / FOLDER), watch)
    old, unlabelled, new = made_rows(desk, rows)
    of_rounds = any(isinstance(one, kinds.Further) and one.of for one in recipe.data.generate)
    kept = desk.sifted(new, old + rows.extra + (unlabelled if of_rounds else []), rows)
    labelled = [row for row in kept if recipe.task != "classification" or "label" in row]
    bare = [row for row in kept if recipe.task == "classification" and "label" not in row]
    if not old and not labelled:
        why = ", ".join(sorted({row["reason"] for row in desk.dropped}))
        raise DataError(
            f"data.generate: nothing that was written can be used ({why}); see data.writer and data.filter."
        )
    counts = {**rows.counts, "written": desk.counts(len(kept))}
    watch.note(f"  written: {desk.asked:,} texts, {len(kept):,} rows kept")
    return replace(
        rows,
        train=old + labelled,
        unlabelled=unlabelled + bare,
        dropped=[*rows.dropped, *desk.dropped],
        counts=counts,
        written=frozenset(row["id"] for row in kept),
    )


def made_rows(desk: "Desk", rows: Prepared) -> tuple[list[Row], list[Row], list[Row]]:
    """(training rows that stay as they are, unlabelled ones, the written ones before they are sifted)"""
    old, unlabelled = list(rows.train), list(rows.unlabelled)
    new: list[Row] = []
    for wanted in desk.recipe.data.generate:
        of = wanted.of if isinstance(wanted, kinds.Further) else None
        there = [*old, *new, *rows.extra, *unlabelled, *rows.near_duplicates]
        some = unlabelled or old if of is None else standing_in(Path(of), there, desk.recipe.task)
        refuse_plain_text(wanted, some)
        if isinstance(wanted, kinds.Answers):
            new = desk.answers(wanted, some)
            old, unlabelled = (old if unlabelled else []), []
        else:
            new += MAKERS[type(wanted)](desk, wanted, old + new if of is None else some)
    return old, unlabelled, new


def make_writer(recipe: Any, models: dict[str, Any]) -> Writer | ApiWriter:
    """Who writes: the model that `data.writer` names, or the teacher."""
    if recipe.writing_api is not None:
        own = recipe.data.writer is not None and recipe.data.writer.api is not None
        return ApiWriter(recipe.writing_api, "data.writer.api" if own else "teacher.api")
    found = models["writer"] or models["teacher"]
    size = recipe.data.writer.batch_size if recipe.data.writer is not None else 16
    dtype = "bfloat16" if models["bfloat16"] else "float32"
    if recipe.task == "seq2seq":
        return TargetWriter(Path(found["folder"]), found["identity"], dtype, size, recipe.data.max_length)
    return LocalWriter(Path(found["folder"]), found["identity"], dtype, size)


def make_others(recipe: Any, models: dict[str, Any]) -> list[Writer | ApiWriter]:
    """The further models that answer."""
    if recipe.data.writer is None:
        return []
    dtype = "bfloat16" if models["bfloat16"] else "float32"
    size = recipe.data.writer.batch_size
    here = iter(models["others"])
    before = [recipe.writing_api]
    made: list[Writer | ApiWriter] = []
    for number, one in enumerate(recipe.data.writer.others):
        if one.api is not None:
            made.append(ApiWriter(one.api, f"data.writer.others[{number}].api", before))
            before.append(one.api)
        else:
            found = next(here)
            made.append(LocalWriter(Path(found["folder"]), found["identity"], dtype, size))
    return made


def make_desk(
    recipe: Any, models: dict[str, Any], kept: Texts, watch: Watch, together: Together | None = None
) -> "Desk":
    """Where the rows of `recipe` are written."""
    writers = [make_writer(recipe, models), *make_others(recipe, models)]
    return Desk(recipe, writers, models, kept, watch, together)


@dataclass
class Desk:
    """Where prompts go out and texts come in; keeps account of what became of each."""

    recipe: Any
    writers: Sequence[Writer | ApiWriter]
    """All of them answer, and the first one writes everything else."""
    models: dict[str, Any]
    kept: Texts
    watch: Watch
    together: Together | None = None
    """If this is one process of several."""
    dropped: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0

    def __post_init__(self) -> None:
        settings = self.recipe.data.writer
        self.prompts = Path(settings.prompts) if settings is not None and settings.prompts else None
        if self.prompts is not None:
            templates.check_folder(self.prompts)
        readers = {one["folder"] for one in (self.models["teacher"], self.models.get("student")) if one}
        self.control = control_pieces(*(load_tokenizer(Path(folder)) for folder in readers))

    def template(self, name: str) -> str:
        """A prompt's text."""
        return templates.template(name, self.prompts)

    def texts(
        self,
        prompts: Sequence[Prompt],
        rows: Sequence[str],
        wanted: Any,
        temperature: float,
        writers: Sequence[Writer | ApiWriter] = (),
    ) -> list[list[Said]]:
        """What each writer (the first, if none is named) says to each, without pieces that a tokenizer would take for control
        tokens.

        Args: rows: what each prompt is for.
        """
        writers = writers or self.writers[:1]
        sampling = Sampling(wanted.max_new_tokens, temperature, wanted.top_p)
        if self.together is not None:
            here = [writer for writer in writers if not isinstance(writer, ApiWriter)]
            self.together.write(here, prompts, sampling, wanted.kind)
        self.asked += len(prompts) * len(writers)
        said = [self.said(writer, prompts, rows, sampling, wanted.kind) for writer in writers]
        return [
            [text if isinstance(text, Lost) else without_control(text, self.control) for text in own]
            for own in said
        ]

    def said(
        self,
        writer: Writer | ApiWriter,
        prompts: Sequence[Prompt],
        rows: Sequence[str],
        sampling: Sampling,
        purpose: str,
    ) -> list[Said]:
        """One writer's texts, from where they are kept or from itself."""
        if isinstance(writer, ApiWriter):
            with Ledger(self.ledger) as ledger:
                return writer.texts(prompts, rows, sampling, self.recipe.seed, purpose, ledger, self.watch)
        texts = write_kept(writer, prompts, sampling, self.recipe.seed, self.kept, self.watch, purpose)
        return [cut_off(sampling.max_new_tokens) if text is None else text for text in texts]

    def scores(self, rows: Sequence[Row]) -> Sequence[Scored]:
        """What the judge says of their answers."""
        return scored(self.recipe, rows, self.models, self.kept.folder.parent, self.watch)

    @property
    def ledger(self) -> Path:
        """What was asked of APIs: the run's own, which its label stage reads and pays into as well."""
        return ledger_of(self.kept.folder.parent, LEDGER)

    def rows(self, asks: Iterable[Ask], wanted: Any, temperature: float) -> list[Row]:
        """The rows that the writer's answers make."""
        return [row for _, row in self.numbered(asks, wanted, temperature)]

    def numbered(self, asks: Iterable[Ask], wanted: Any, temperature: float) -> list[tuple[int, Row]]:
        """The same, each with the number of what was asked."""
        asks = list(asks)
        (texts,) = self.texts([ask.prompt for ask in asks], [ask.where for ask in asks], wanted, temperature)
        made = []
        for number, (ask, text) in enumerate(zip(asks, texts, strict=True)):
            row = text.reason if isinstance(text, Lost) else ask.row(text)
            if isinstance(row, str):
                self.drop(ask.where, row)
            else:
                made.append((number, row))
        return made

    def answers(self, wanted: kinds.Answers, questions: Sequence[Row]) -> list[Row]:
        """The questions with the writers' answers; of several, with the one that is chosen."""
        for row in questions:
            if not written.asks(row):
                self.drop(row["where"], "nobody asks")
        questions = [row for row in questions if written.asks(row)]
        if wanted.samples * len(self.writers) == 1 and wanted.choose == "agreement":
            return self.rows(written.answers(questions), wanted, wanted.temperature)
        repeated = [row for row in questions for _ in range(wanted.samples)]
        prompts, rows = [written.prompt_of(row) for row in repeated], [row["where"] for row in repeated]
        said: list[list[Said]] = [[] for _ in questions]
        for some in self.texts(prompts, rows, wanted, wanted.temperature, self.writers):
            for number, own in enumerate(said):
                own += some[number * wanted.samples : (number + 1) * wanted.samples]
        made = []
        whole = [[None if isinstance(text, Lost) else text for text in own] for own in said]
        choices = self.chosen(wanted, questions, whole)
        for row, own, texts, (chosen, reason) in zip(questions, said, whole, choices, strict=True):
            text = None if chosen is None else texts[chosen]
            new = written.answered(row, text) if text is not None else reason
            if isinstance(new, str):
                lost = next((one.reason for one in own if isinstance(one, Lost)), new)
                self.drop(row["where"], lost if reason == choosing.CUT else new)
            else:
                made.append(new)
        return made

    def chosen(
        self, wanted: kinds.Answers, questions: Sequence[Row], said: Sequence[choosing.Texts]
    ) -> list[Choice]:
        """Which of several answers to each stays."""
        return CHOOSERS[wanted.choose](self, wanted, questions, said)

    def answered(self, questions: Sequence[Row], wanted: Any) -> list[Row]:
        """Questions of the writer's with its own greedy answers."""
        return self.rows(written.answers(questions), wanted, 0.0)

    def is_there(self, row: Row) -> bool:
        """Whether its text is known: a stand-in's may yet be lost."""
        return True

    def drop(self, where: str, reason: str, row: Row | None = None) -> None:
        """Count a text that makes no row."""
        self.dropped.append({**(row or {}), "where": where, "reason": reason, "set": "written"})

    def sifted(self, new: list[Row], old: list[Row], rows: Prepared) -> list[Row]:
        """The written rows that are neither there already nor measured on, and that pass the recipe's filter."""
        tests = {"eval": rows.eval, **rows.also}
        taken = {content_key(row, answers=True): "duplicate" for row in old}
        taken |= {content_key(row): f"also in {name}" for name, some in tests.items() for row in some}
        fresh = []
        for row in new:
            whole, asked = content_key(row, answers=True), content_key(row)
            if why := (taken.get(asked, "").startswith("also") and taken[asked]) or taken.get(whole):
                self.drop(row["where"], why, row)
            else:
                taken[whole] = "duplicate"
                fresh.append(row)
        verdicts = sift(fresh, self.recipe.data.filter or Filter(), tests, old, rows.documents)
        for row, verdict in zip(fresh, verdicts, strict=True):
            if verdict is not None:
                self.drop(row["where"], verdict, row)
        return [row for row, verdict in zip(fresh, verdicts, strict=True) if verdict is None]

    def counts(self, kept: int) -> dict[str, Any]:
        """As `data.split` counts a set; what was asked without making a row of its own (a translation there) was never read."""
        reasons: dict[str, int] = {}
        for row in self.dropped:
            reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
        return {
            "format": "written", "read": kept + len(self.dropped), "added": 0, "kept": kept, "held_out": 0,
            "dropped": reasons, "overlap": {}, "texts": self.asked,
            "paid": paid_to(self.writers, self.ledger),
        }  # fmt: skip


def _agreed(
    desk: Desk, wanted: kinds.Answers, questions: Sequence[Row], said: Sequence[choosing.Texts]
) -> list[Choice]:
    key = choosing.key_of(wanted.key)
    return [choosing.vote(texts, wanted.min_agreement, key) for texts in said]


def _checked(
    desk: Desk, wanted: kinds.Answers, questions: Sequence[Row], said: Sequence[choosing.Texts]
) -> list[Choice]:
    score = choosing.checked_by(str(wanted.checker))
    return [
        choosing.best([score(row, text) for text in texts], 0.0, "no answer passes the checker")
        for row, texts in zip(questions, said, strict=True)
    ]


def _judged(
    desk: Desk, wanted: kinds.Answers, questions: Sequence[Row], said: Sequence[choosing.Texts]
) -> list[Choice]:
    whole = answered_rows(questions, said)
    there = [row for rows in whole for row in rows if row is not None]
    scores = iter(desk.scores(there))
    made = []
    for rows in whole:
        own = [None if row is None else next(scores) for row in rows]
        chosen = choosing.best([None if isinstance(one, Lost) else one for one in own], 0.0, "")
        unscored = [one.reason for one in own if isinstance(one, Lost)]
        made.append((None, unscored[0]) if chosen[0] is None and unscored else chosen)
    return made


def answered_rows(questions: Sequence[Row], said: Sequence[choosing.Texts]) -> list[list[Row | None]]:
    """Of each question a row with each of its answers; None for one that makes no row."""
    whole = [
        [None if text is None else written.answered(row, text) for text in texts]
        for row, texts in zip(questions, said, strict=True)
    ]
    return [[None if isinstance(row, str) else row for row in rows] for rows in whole]


CHOOSERS: dict[
    str, Callable[[Desk, kinds.Answers, Sequence[Row], Sequence[choosing.Texts]], list[Choice]]
] = {
    "agreement": _agreed,
    "checker": _checked,
    "judge": _judged,
}
"""How one of several answers is chosen."""


def _paraphrased(desk: Desk, wanted: kinds.Paraphrase, train: list[Row]) -> list[Row]:
    return desk.rows(written.paraphrases(train, wanted, desk.template), wanted, wanted.temperature)


def _translated(desk: Desk, wanted: kinds.BackTranslation, train: list[Row]) -> list[Row]:
    asks = written.translations(train, wanted, desk.template)  # one a row
    foreign = desk.numbered(asks, wanted, wanted.temperature)
    pairs = [(train[number], row) for number, row in foreign]
    return desk.rows(written.translations_back(pairs, wanted, desk.template), wanted, wanted.temperature)


def _self_instructed(desk: Desk, wanted: kinds.SelfInstruct, train: list[Row]) -> list[Row]:
    asks = written.new_tasks(train, wanted, desk.template, desk.recipe.seed)
    return desk.answered(desk.rows(asks, wanted, wanted.temperature), wanted)


def _evolved(desk: Desk, wanted: kinds.EvolInstruct, train: list[Row]) -> list[Row]:
    made: list[Row] = []
    latest = train
    for number in range(wanted.rounds):
        asks = written.harder(latest, wanted, desk.template, number)
        latest = desk.answered(desk.rows(asks, wanted, wanted.temperature), wanted)
        made += latest
    return made


def _reasoned(desk: Desk, wanted: kinds.Rationale, train: list[Row]) -> list[Row]:
    if train and not any(written.is_answered(row) for row in train):
        raise RecipeError(
            "data.generate: rationale gives reasons for answers, and no row has one; put {kind: answers} before it."
        )
    return desk.rows(written.rationales(train, desk.template), wanted, wanted.temperature)


def _negated(desk: Desk, wanted: kinds.HardNegatives, train: list[Row]) -> list[Row]:
    asks = written.hard_negatives(train, wanted, desk.template, desk.recipe.seed)
    return desk.rows(asks, wanted, wanted.temperature)


def _balanced(desk: Desk, wanted: kinds.Balance, train: list[Row]) -> list[Row]:
    asks = written.balancing(train, wanted, desk.template, desk.recipe.seed, desk.is_there)
    return desk.rows(asks, wanted, wanted.temperature)


MAKERS: dict[type, Callable[[Desk, Any, list[Row]], list[Row]]] = {
    kinds.Paraphrase: _paraphrased,
    kinds.BackTranslation: _translated,
    kinds.SelfInstruct: _self_instructed,
    kinds.EvolInstruct: _evolved,
    kinds.Rationale: _reasoned,
    kinds.HardNegatives: _negated,
    kinds.Balance: _balanced,
}
"""Kind -> what makes its rows of the training rows so far."""
