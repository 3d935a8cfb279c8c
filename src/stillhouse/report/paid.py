"""When the student has paid for itself, and what is counted."""

from typing import Any

from .numbers import count, in_words, number
from .section import Section
from .table import Results


def paid(results: Results) -> Section | None:
    """The section of the page; None without prices."""
    found = results.get("economics")
    if not found:
        return None
    columns = ["teacher, a million", "student, a million", "making the student", "of that, machine time"]
    row = [
        number(found[name]) for name in ("teacher_per_million", "student_per_million", "making", "machine")
    ]
    return Section("What it costs", paid_in_words(found), columns, [row])


def paid_in_words(found: dict[str, Any]) -> list[str]:
    """After how many requests the student has paid for itself, and what making it is counted as; `found` is "economics"."""
    pays = found["break_even_requests"]
    after = (
        f"The run has paid for itself after {count(pays)} requests."
        if pays is not None
        else f"{found['note']}".capitalize()
    )
    priced = {field: dollars for field, dollars in found["paid"].items() if dollars is not None}
    silent = [field for field in found["paid"] if field not in priced]
    made = [f"the machine's time ({number(found['machine'])})"]
    made += [f"{field} ({number(dollars)})" for field, dollars in priced.items()]
    says = [after, f"Counted for making it: {in_words(made)}."]
    if silent:
        says.append(f"Not counted, for no price is known: {in_words(silent)}.")
    if found["teacher_priced_by"] == "teacher.api.price":
        says.append("The teacher costs what its answers in this run did, what it read for them included.")
    return says
