"""The licence that a package or a model card states.  It is reported, not judged."""

import re
from email.parser import HeaderParser
from pathlib import Path

LONGEST = 100
"""Characters; a longer License field is the licence's text, not its name."""


def package_licence(metadata: Path) -> str | None:
    """From a wheel's METADATA: License-Expression, else License, else its classifiers; or None."""
    if not metadata.is_file():
        return None
    head = HeaderParser().parsestr(metadata.read_text(encoding="utf-8", errors="replace"))
    for field in ("License-Expression", "License"):
        value = str(head.get(field, "")).strip()
        if value and value.upper() != "UNKNOWN" and "\n" not in value and len(value) <= LONGEST:
            return value
    classified = [str(line).split(" :: ") for line in head.get_all("Classifier", [])]
    names = [
        parts[-1].strip() for parts in classified if parts[0] == "License" and parts[-1] != "OSI Approved"
    ]
    return " / ".join(names) or None


def card_licence(folder: Path) -> str | None:
    """From the front matter of a model or data card, README.md; None if it states none.

    Only this one field is looked at, line by line, so that faulty YAML elsewhere does not hide it.
    """
    card = folder / "README.md"
    if not card.is_file():
        return None
    front = re.match(
        r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL
    )
    if not front:
        return None
    values = _values("license", front[1])
    if values == ["other"]:
        values = _values("license_name", front[1]) or values
    return " / ".join(values) or None


def _values(key: str, front: str) -> list[str]:
    """The scalar, the [list] or the "- item" lines under `key`."""
    found = re.search(rf"^{key}:[ \t]*(.*)((?:\n[ \t]*-[ \t]+.*)*)", front, re.MULTILINE)
    if not found:
        return []
    inline = re.sub(r"\s+#.*", "", found[1]).strip().strip("[]").split(",")
    items = [*inline, *re.findall(r"-[ \t]+(.*)", found[2])]
    return [word for word in (item.strip().strip("'\"") for item in items) if word]
