"""`data.filter`: which rows are not worth learning from."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from .section import Section

Share = Annotated[float, Field(gt=0, le=1)]

Language = Literal[
    "ar", "cs", "da", "de", "el", "en", "es", "fi", "fr", "he", "hi", "hu", "it", "ja", "ko", "nl", "pl", "pt", "ru",
    "sv", "th", "tr", "uk", "zh",
]  # fmt: skip


class Filter(Section):
    """Rows of `train`, `extra` and `unlabelled`, and those that a model wrote, are dropped for these reasons; what is measured on
    is never touched.  Where a row has an answer, what is said of `text` is said of its answer; a prompt that a
    teacher behind an API answers is judged by that answer, when it is there."""

    min_words: PositiveInt | None = None
    """Shortest text, in words; each Chinese, Japanese or Korean character is one."""
    max_words: PositiveInt | None = None
    """Longest text, in words."""
    languages: list[Language] | None = Field(default=None, min_length=1)
    """Drop text that is surely in another language than these (ISO 639-1); what is too short to tell stays."""
    contamination: Annotated[int, Field(ge=20)] | None = 50
    """Letters and digits in a row that a training row may not share with any evaluation row, nor with a document of
    `evaluate.harness`; case, spaces and punctuation do not count (OpenAI 2023, arXiv:2303.08774, appendix C).  `null` leaves it to
    the exact comparison with evaluation rows that is always made."""
    near_duplicates: Annotated[float, Field(ge=0.3, lt=1)] | None = None
    """Of rows that share at least this much of their runs of three words (Jaccard similarity; 0.8 is usual) keep one."""
    max_repetition: Share | None = None
    """Largest share of a text's words in runs of four that came before in it (Rae et al. 2021, arXiv:2112.11446; 0.2 is usual)."""
    refusals: bool = False
    """Drop answers that decline ("I'm sorry, but I can't …", "As an AI …"), in English and eleven more languages (de, fr, es, it,
    pt, nl, pl, ru, zh, ja, ko)."""
    pattern: str | None = None
    """Regular expression that the text must contain; anchor it with ^ and $ to match the whole."""
    json_schema: str | None = None
    """File with a JSON Schema that the text must fulfil as a JSON document."""
    checker: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    """`package.module:function` of yours: given a row, it returns True, or False or the reason to drop it."""
    min_confidence: Share | None = None
    """Lowest confidence of the teacher: the geometric mean of its probabilities of an answer's tokens, or its probability of a
    row's label (of its favourite, for a row without one).  Plain text is judged by the packed sequence.  Whom the run must first make
    or hear (finetune, zero_shot, panel, context, api) is asked where rows are labelled, and then the control still learns from all."""
    min_score: Share | None = None
    """Lowest score that `data.judge` gives a row's answer."""
    select: PositiveInt | None = None
    """Keep this many rows of `train`, chosen so that no row is far from a chosen one (greedy k-center, arXiv:1708.00489)."""

    @field_validator("pattern")
    @classmethod
    def _pattern_is_one(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"is no regular expression ({error})") from error
        return value

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.min_words and self.max_words and self.min_words > self.max_words:
            raise ValueError(f"min_words: {self.min_words} is more than max_words, {self.max_words}")
        return self
