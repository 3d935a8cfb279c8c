"""Whether a teacher may train another model, as far as published terms say, and which licence its student then carries.

The table is `terms.json`, with a source for each line and the month in which it was drawn up.  What it does not know is
`unknown`, which is said and stops nothing; `disallowed` stops a run unless the recipe accepts it in writing.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlsplit

from ..errors import RecipeError

Verdict = Literal["allowed", "disallowed", "unknown"]
PERMISSIVE = ("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0")
"""Licences that ask of a student no more than to name its sources."""
SPELLINGS = {
    "apache": "apache-2.0", "apache2": "apache-2.0", "apache 2.0": "apache-2.0", "apache license 2.0": "apache-2.0",
    "apache-2": "apache-2.0", "apache software license": "apache-2.0", "mit license": "mit", "bsd license": "bsd",
    "the unlicense (unlicense)": "unlicense", "gpl-3.0-only": "gpl-3.0", "gpl-3.0-or-later": "gpl-3.0",
    "agpl-3.0-only": "agpl-3.0", "agpl-3.0-or-later": "agpl-3.0", "gemma terms of use": "gemma",
}  # fmt: skip


@dataclass(frozen=True)
class Terms:
    """What is known about one licence or provider."""

    subject: str
    """The licence, or the provider's name."""
    verdict: Verdict
    why: str
    source: str
    passes_on: bool = False
    """Whether what is trained on it carries its terms."""
    drawn_up: str = ""
    """The month in which the table was drawn up."""

    def sentence(self) -> str:
        """For a person."""
        where = f"; {self.source}" if self.source else ""
        when = f"; as known in {self.drawn_up}" if self.drawn_up else ""
        return f"training others on {self.subject}: {self.verdict} ({self.why}{where}{when})"


@cache
def table() -> dict[str, Any]:
    """The content of terms.json."""
    found: dict[str, Any] = json.loads(files(__package__).joinpath("terms.json").read_text(encoding="utf-8"))
    return found


def of_licence(name: str | None) -> Terms:
    """What a licence says; unknown if it is not in the table, or none is stated."""
    if not name:
        return Terms("a model without a stated licence", "unknown", "its card names no licence", "")
    known = table()["licences"].get(plain(name))
    if known is None:
        return Terms(name, "unknown", "this licence is not in the table of terms", "")
    return _terms(name, known)


def of_provider(address: str) -> Terms:
    """What the provider at a base URL says; unknown if it is not in the table.  A machine of one's own has no terms."""
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return Terms(
            host, "unknown", "a machine of one's own: the licence of the model it serves decides", ""
        )
    known = next((line for name, line in table()["providers"].items() if _is_of(host, name)), None)
    if known is None:
        return Terms(host, "unknown", "this provider is not in the table of terms", "")
    return _terms(known["name"], known)


def _is_of(host: str, name: str) -> bool:
    """Whether a host is the one that the table names, or below it; a * in the name stands for a region."""
    return fnmatchcase(host, name) or fnmatchcase(host, f"*.{name}")


def of_past_answers(model: str) -> Terms:
    """Of answers in a file, which nobody was asked for: whose terms they came under is not known."""
    return Terms(
        f"past answers of {model}", "unknown", "they are from a file: the terms they came under decide", ""
    )


def _terms(subject: str, known: dict[str, Any]) -> Terms:
    return Terms(
        subject,
        known["training_others"],
        known["why"],
        known["source"],
        known.get("passes_on", False),
        table()["drawn_up"],
    )


def refuse_disallowed(terms: Iterable[Terms], accepted: str | None, who: str = "teacher") -> None:
    """Raises: RecipeError for the first that forbids training others, unless the recipe accepts it in writing.

    who: the field of the recipe that names what is under these terms.
    """
    wrong = next((one for one in terms if one.verdict == "disallowed"), None)
    if wrong is not None and not accepted:
        raise RecipeError(
            f"{who}: {wrong.sentence()}. Choose {'other data' if who.startswith('data.') else 'another teacher'}, or say in teacher.terms_accepted who "
            "decided that it is allowed here, and why; that sentence will stand in the run and in the model card."
        )


def plain(name: str) -> str:
    """A licence as the table spells it."""
    lower = name.strip().lower()
    return SPELLINGS.get(lower, lower)


@dataclass(frozen=True)
class StudentLicence:
    """Under which licence a student may be handed on, as far as can be computed."""

    licence: str | None
    """None where it cannot be computed."""
    why: str


def student_licence(weights: str | None, others: Iterable[str | None]) -> StudentLicence:
    """The licence of a student whose own weights came under `weights`, and which learned from `others`.

    Its weights' licence stays; a licence that is passed on comes with what it was learned from.  Two that both ask to be
    the only one, and any that is not known, are for a person to decide.

    Args: weights: of the model whose weights it began with; None if not stated.  others: of teachers and data.
    """
    names = [weights, *others]
    if missing := [name for name in names if not name or of_licence(name).verdict == "unknown"]:
        named = ", ".join(sorted({name or "one that is not stated" for name in missing}))
        return StudentLicence(None, f"it learned under terms from which no licence follows here: {named}")
    kept = {plain(str(name)) for name in names}
    asking = sorted(name for name in kept if of_licence(name).passes_on)
    if len(asking) > 1:
        return StudentLicence(None, f"{' and '.join(asking)} both ask that it carries them")
    if asking:
        return StudentLicence(asking[0], f"{asking[0]} is passed on to what is trained on it")
    return StudentLicence(plain(str(weights)), "the licence of the weights that it began with")
