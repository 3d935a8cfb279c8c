"""`teacher.api:`: a teacher behind an OpenAI-compatible endpoint, or one whose past answers lie in a file."""

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    field_validator,
    model_validator,
)

from .section import Column, Section

OF_FEW = ("forward_kl", "reverse_kl", "js", "skew_forward_kl", "skew_reverse_kl", "total_variation")
"""Terms that can compare with the most probable tokens and a tail."""
OF_FIELDS = {
    "temperature": "temperature",
    "max_tokens": "max_tokens",
    "logprobs": "top_logprobs",
    "top_logprobs": "top_logprobs",
}
"""Name in a request -> the field that says it.  `max_completion_tokens` has none: some models know no other limit."""
OTHER_DISTRIBUTION = {
    "top_p", "top_k", "min_p", "typical_p", "logit_bias", "frequency_penalty", "presence_penalty", "repetition_penalty",
}  # fmt: skip
"""Names in a request that make some servers tell other probabilities than the model's own."""
SAYS_NO_CONFIDENCE = (
    "the teacher's answers come without probabilities, so that nobody knows how sure it is; set teacher.api.top_logprobs if the "
    "server gives them, or remove it"
)
"""What is wrong with a filter by the confidence of such a teacher, and what helps."""
Prompt = Annotated[str, Field(pattern=r"(?s)(\{text\}|^[^\n]*\.txt$)")]


class Price(Section):
    """What a provider asks, in dollars per million tokens."""

    input: NonNegativeFloat
    """Of what the teacher reads."""
    output: NonNegativeFloat
    """Of what it writes, its reasoning included."""


class Api(Section):
    """Where the teacher is, what it is asked, and how fast and how dear that may get."""

    base_url: str | None = None
    """Up to the version, such as http://localhost:8000/v1 (vLLM, SGLang, llama.cpp, Ollama, OpenAI, clouds); may be left out with
    `answers`."""
    model: str = Field(min_length=1)
    """The model's name at that endpoint."""
    api_key_env: str | None = Field(default=None, pattern="^[A-Za-z_][A-Za-z0-9_]*$")
    """NAME of the environment variable that holds the key; never the key itself."""
    endpoint: Literal["chat", "completions"] = "chat"
    """chat/completions, or completions for base models."""
    system: str | None = None
    """A system message before each prompt (chat only)."""
    prompt: Prompt | None = None
    """Classification: what is asked about a row, or a .txt file with it; {text}, {pair} and {labels} are filled in.  It has a default.
    seq2seq: the same, with the source as {text}; the source alone if not given.  The student never reads it."""
    labels: list[str] | dict[str, str] = []
    """Classification: the labels' names where no training row has one; or the data's label: the word that the teacher says for it."""
    top_logprobs: Annotated[PositiveInt, Field(le=20)] | None = None
    """Ask for this many log-probabilities a token.  Classification: they become each label's probability.  Language models: they
    become soft targets, where the student's tokenizer is the model's (task: causal_lm)."""
    temperature: NonNegativeFloat | None = 0.0
    """0 is the most probable answer; null is not sent (some models refuse it)."""
    max_tokens: PositiveInt | None = None
    """Tokens an answer may take, at most: 1024, or 16 for classification, if not given.  Of a model that knows only
    `max_completion_tokens`, give that in `extra_body` instead."""
    extra_body: dict[str, Any] = {}
    """Further fields of each request, such as {reasoning_effort: low}."""
    concurrency: Annotated[PositiveInt, Field(le=1024)] = 64
    """Requests under way at once, at most; fewer while the endpoint throttles."""
    requests_per_minute: PositiveInt | None = None
    """The provider's limit."""
    tokens_per_minute: PositiveInt | None = None
    """The provider's limit, read and written together."""
    timeout: PositiveFloat = 120.0
    """Seconds until an answer counts as lost."""
    price: Price | None = None
    """For the forecast, the ledger and `max_cost`."""
    max_cost: PositiveFloat | None = None
    """Dollars, over all that is asked from this folder, by all runs of a plan together: asking stops before it is passed."""
    answers: str | None = None
    """Past answers to take before anything is asked: a file of OpenAI's batch output, of stored completions, or of rows in any format
    that `data.train` takes."""
    columns: dict[Column, str] = {}
    """Our name -> the name in the file of past answers, where they differ, as in `data.train.columns`."""
    _namesakes: tuple[str, ...] = PrivateAttr(())

    @field_validator("base_url")
    @classmethod
    def _is_a_url_without_secrets(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"must begin with http:// or https:// and name a host, not {value!r}")
        if parts.username or parts.password or parts.query:
            raise ValueError("must hold no password and no query; name the key's variable in api_key_env")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.base_url is None and self.answers is None:
            raise ValueError("needs base_url, or answers to take instead")
        if self.max_cost is not None and self.price is None:
            raise ValueError(
                "max_cost: costs are not known without a price; add price: {input: …, output: …}"
            )
        if self.endpoint == "completions" and self.system is not None:
            raise ValueError("system: only the chat endpoint has system messages; put it into prompt")
        if reserved := {"model", "messages", "prompt", "stream", "n"} & set(self.extra_body):
            raise ValueError(f"extra_body: {min(reserved)} is set by the run itself; remove it")
        if twice := sorted(set(OF_FIELDS) & set(self.extra_body)):
            raise ValueError(
                f"extra_body: {twice[0]} is what the field {OF_FIELDS[twice[0]]} is for; use that"
            )
        if self.max_tokens is not None and "max_completion_tokens" in self.extra_body:
            raise ValueError(
                "extra_body: max_completion_tokens is sent in the place of max_tokens, which must not be given then; remove one"
            )
        return self

    @property
    def namesakes(self) -> tuple[str, ...]:
        """Where else the recipe, or another run of its plan, asks a model of this name: only an address tells the answers of one from those of the other.

        They say what a question is called, and not what comes of it, so no stage runs anew when they change.
        """
        return self._namesakes

    @property
    def for_teachers(self) -> list[str]:
        """Fields that are set and say what only a teacher is asked."""
        return [
            name for name in ("prompt", "labels", "top_logprobs", "answers", "columns") if getattr(self, name)
        ]

    @property
    def label_words(self) -> dict[str, str]:
        """Label -> the teacher's word for it, of the labels that are named."""
        return self.labels if isinstance(self.labels, dict) else {label: label for label in self.labels}


def tell_apart(apis: Collection[Api], others: Collection[Api] = ()) -> None:
    """Let each of a recipe's APIs know its namesakes, those of `others` that share its ledger among them."""
    for api in apis:
        known = [one for one in (*apis, *others) if one.model == api.model]
        places = {one.base_url for one in known if one.base_url != api.base_url}
        api._namesakes = tuple(sorted(place for place in places if place)) if api.base_url else ()


def api_fault(recipe: Any) -> str | None:
    """What of the other sections does not go with a teacher behind an API, in a sentence; None if nothing."""
    api, student = recipe.teacher.api, recipe.student
    if api is None:
        return (
            None
            if student.tokenizer is None or not recipe.teacher.lends
            else "student.tokenizer: only with teacher.api or teacher.zero_shot; the student reads with its teacher's tokenizer"
        )
    if student.from_teacher is not None:
        return "student.from_teacher: an API has no layers to keep; use student.model, or from_config with student.tokenizer"
    if student.from_config is not None and student.tokenizer is None:
        return (
            "student.tokenizer: an API lends no tokenizer; name a model of the student's family that does, or use "
            "student.model"
        )
    if recipe.label.online or recipe.rollouts is not None:
        what = "label.online" if recipe.label.online else "rollouts"
        return f"{what}: a teacher behind an API cannot run beside the student; remove it"
    if recipe.label.samples is not None:
        return "label.samples: an API's probabilities are not drawn from; remove it"
    if recipe.data.augment is not None:
        return "data.augment: makes tokens, and an API reads text; use data.unlabelled"
    if student.vocabulary is not None:
        return "student.vocabulary: needs the teacher's model on this machine, and it is behind an API; remove it"
    if recipe.data.generate and recipe.writing_api is api and api.base_url is None:
        return "data.generate: past answers write nothing new; add teacher.api.base_url, or name a model in data.writer"
    if recipe.data.filter is not None and recipe.data.filter.min_score is not None:
        return "data.filter.min_score: scores rows before the API has answered them; remove it"
    sure = recipe.data.filter is not None and recipe.data.filter.min_confidence is not None
    if sure and api.base_url is not None and api.top_logprobs is None:
        return f"data.filter.min_confidence: {SAYS_NO_CONFIDENCE}"
    if recipe.task in ("causal_lm", "seq2seq"):
        if api.labels:
            return "teacher.api.labels: only for task: classification; remove it"
        if api.prompt and recipe.task == "causal_lm":
            return "teacher.api.prompt: only for task: classification and seq2seq; remove it"
        rowwise = ("groups", "perturb", "swap")
        if asked := [name for name in rowwise if getattr(recipe.evaluate, name)]:
            return f"evaluate.{asked[0]}: compares with the teacher row by row, and behind an API it says texts alone; remove it"
        if soft := [term for term in recipe.terms if term.kind not in ("hard", "deeper_layers")]:
            return _told_fault(recipe, api, soft)
    elif not recipe.names_teacher:
        return "objective: no term uses the teacher, whose answers are soft targets; add {kind: forward_kl}"
    return None


def _told_fault(recipe: Any, api: Api, soft: list[Any]) -> str | None:
    """Why the log-probabilities of an API's tokens do not do for these terms; None if they do."""
    first = soft[0].kind
    if api.top_logprobs is None:
        return (
            f"objective: {first} needs the teacher's probabilities, and behind an API it says text alone, which the student "
            "learns as hard targets; add teacher.api.top_logprobs if the server gives them, or use objective: [{kind: hard}]"
        )
    if unfit := [term.kind for term in soft if term.kind not in OF_FEW]:
        return (
            f"objective: {unfit[0]} needs more than the most probable tokens, which are all that an API tells; use one of "
            f"{', '.join(OF_FEW)}"
        )
    if recipe.label.top_k == "all":
        return "label.top_k: an API tells teacher.api.top_logprobs tokens and not all; remove it"
    if other := [term for term in soft if term.temperature != 1.0]:
        return (
            f"objective: {other[0].kind} asks for another temperature than 1, at which an API's probabilities are, and few of "
            "them cannot be taken to another; set its temperature: 1"
        )
    if bent := sorted(OTHER_DISTRIBUTION & set(api.extra_body)):
        return (
            f"teacher.api.extra_body: with {bent[0]} some servers tell other probabilities than the model's own, which are soft "
            "targets here; remove it"
        )
    if api.temperature not in (0.0, 1.0):
        return (
            "teacher.api.temperature: some servers tell probabilities at the temperature they write at; set it to 0 or 1 where "
            "they are soft targets"
        )
    return None
