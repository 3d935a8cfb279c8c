"""`data.generate`: rows that a language model writes."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from .section import Section

Target = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class _Kind(Section):
    max_new_tokens: PositiveInt = 256
    """Tokens of an answer; one that is longer is dropped, for it has no end."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the fewest tokens that together have this probability."""


class Further(_Kind):
    of: str | None = None
    """A file of rows: only those training rows that stand in it, in whatever set, are gone on from; without it those of `data.train`,
    and what was written before."""


class Answers(_Kind):
    """The teacher's own answers to the prompts of `data.unlabelled`, or else in place of those of `data.train`: sequence-level
    distillation (Kim & Rush 2016, arXiv:1606.07947)."""

    kind: Literal["answers"] = "answers"
    temperature: NonNegativeFloat = 0.0
    """0 takes the most probable token each time."""
    samples: PositiveInt = 1
    """Answers of each writer to each prompt, of which one stays."""
    choose: Literal["agreement", "checker", "judge"] = "agreement"
    """agreement: the one that most come to (self-consistency, Wang et al. 2022, arXiv:2203.11171), none if two are even;
    checker: the one that scores highest, by your function; judge: the same by `data.judge`."""
    min_agreement: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The smallest share of the answers asked for that must come to the same."""
    key: Target | None = None
    """`package.module:function` of yours: a text -> what it comes to, for `agreement`; else the part after a mark (####,
    \\boxed{, "answer is"), the last number, or all words."""
    checker: Target | None = None
    """`package.module:function` of yours for `choose: checker`: a row -> True, a number (above 0, the higher the better), or
    False or a reason."""

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples: all are the same at temperature 0; set temperature: 0.7")
        if self.key is not None and self.choose != "agreement":
            raise ValueError("key: only answers that are to agree are compared by it; remove it")
        if (self.checker is not None) != (self.choose == "checker"):
            raise ValueError("checker: name your function together with choose: checker, and only then")
        return self


class Paraphrase(Further):
    """Further rows that say the same in other words: the text, or the question, whose answer stays."""

    kind: Literal["paraphrase"] = "paraphrase"
    temperature: PositiveFloat = 0.8
    """Of sampling."""
    copies: PositiveInt = 1
    """New rows made of each."""
    keep_label: bool = False
    """Classification: the new row has the old one's label; else only the teacher labels it."""


class BackTranslation(Further):
    """Further rows, translated into another language and back (Sennrich et al. 2015, arXiv:1511.06709)."""

    kind: Literal["back_translation"] = "back_translation"
    language: str = Field("French", min_length=1)
    """By way of which language."""
    temperature: NonNegativeFloat = 0.0
    """Of sampling, both ways."""
    keep_label: bool = False
    """Classification: the new row has the old one's label; else only the teacher labels it."""


class SelfInstruct(Further):
    """New tasks in the manner of some training rows, and their answers (Wang et al. 2022, arXiv:2212.10560)."""

    kind: Literal["self_instruct"] = "self_instruct"
    rows: PositiveInt
    """New tasks asked for."""
    examples: PositiveInt = 4
    """Training rows shown to the writer each time."""
    temperature: PositiveFloat = 0.9
    """Of sampling the tasks; answers are greedy."""


class EvolInstruct(Further):
    """Harder variants of the training rows' questions, and their answers (WizardLM, Xu et al. 2023, arXiv:2304.12244)."""

    kind: Literal["evol_instruct"] = "evol_instruct"
    rounds: PositiveInt = 1
    """Times that each question is made harder; each time gives a row."""
    temperature: PositiveFloat = 0.8
    """Of sampling the questions; answers are greedy."""


class Rationale(_Kind):
    """Training rows whose answer is preceded by the writer's reasons for it (Hsieh et al. 2023, arXiv:2305.02301)."""

    kind: Literal["rationale"] = "rationale"
    temperature: NonNegativeFloat = 0.0
    """Of sampling."""


class HardNegatives(_Kind):
    """Classification: training texts changed as little as it takes to belong to another label."""

    kind: Literal["hard_negatives"] = "hard_negatives"
    temperature: PositiveFloat = 0.8
    """Of sampling."""
    keep_label: bool = False
    """The new row has the label that was asked for; else only the teacher labels it."""


class Balance(_Kind):
    """Classification: new texts for the labels that have few, until each has as many as the largest."""

    kind: Literal["balance"] = "balance"
    examples: PositiveInt = 4
    """Training texts of the label shown to the writer each time."""
    most: PositiveInt = 1000
    """New texts for a label, at most."""
    temperature: PositiveFloat = 0.9
    """Of sampling."""
    keep_label: bool = True
    """The new row has the label that was asked for; else only the teacher labels it."""


Generate = Annotated[
    Answers
    | Paraphrase
    | BackTranslation
    | SelfInstruct
    | EvolInstruct
    | Rationale
    | HardNegatives
    | Balance,
    Field(discriminator="kind"),
]

More = Annotated[
    Paraphrase | BackTranslation | SelfInstruct | EvolInstruct,
    Field(discriminator="kind"),
]
"""Those of them that need no label of the rows they go on from."""


def most_of(one: Further, rows: int) -> int:
    """How many rows it makes of so many, at most."""
    match one:
        case Paraphrase():
            return one.copies * rows
        case SelfInstruct():
            return one.rows
        case EvolInstruct():
            return one.rounds * rows
        case _:
            return rows
