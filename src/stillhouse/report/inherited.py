"""What the student has from its teacher that it would not have without: errors and gaps between groups, against the control."""

from collections.abc import Iterator
from typing import Any

from ..held_out import MADE
from .numbers import MISSING, in_words, known, number, with_interval
from .section import MOST, WHO, Section, three
from .table import Results, dataset_names


def _sets(results: Results, section: str) -> dict[str, dict[str, Any]]:
    """Data set -> what a section of results.json has of it, `eval` first; without the sets that are made of it, which tell of what
    was changed."""
    found = results.get(section) or {}
    return {kind: found[kind] for kind in dataset_names(results) if kind not in MADE and found.get(kind)}


def inherited_errors(results: Results) -> Iterator[Section]:
    """The errors that the student repeats against those it would make anyway, and the words that go with them."""
    found = _sets(results, "inheritance")
    rows = [
        [
            f"{kind} ({each['teacher_errors']:,} errors)",
            *(with_interval(each["models"].get(name)) for name in ("student", "hard_only")),
            _with_p(each["excess"]),
        ]
        for kind, each in found.items()
    ]
    columns = ["share of the teacher's errors repeated on", *WHO[1:], "difference"]
    if rows:
        says = [found["eval"]["says"]] if "eval" in found else []
        yield Section("Errors inherited from the teacher", says, columns, rows)
    words = [
        [each["word"], f"{each['rows']:,}", f"{each['errors']:,}", number(each["expected"])]
        for each in found.get("eval", {}).get("words", [])
    ]
    if words:
        says = ["In more of them than chance explains; a wrong rule may stand behind these words."]
        columns = ["word", "rows with it", "errors in them", "expected"]
        yield Section("Words in the inherited errors", says, columns, words)


def group_gaps(results: Results) -> Iterator[Section]:
    """Each gap in all who were measured; then how the student's differs from its teacher's and from the control's."""
    found = _sets(results, "groups")
    several = len(found) > 1
    gaps = [(kind, gap) for kind, each in found.items() for gap in each["gaps"]]
    if not gaps:
        return
    alarms = [
        f"{gap['title']} of {gap['column']} = {gap['group']}{f' on {kind}' if several else ''}"
        for kind, gap in gaps
        if gap["alarm"]
    ]
    says = [
        f"Inherited from the teacher, beyond what the control shows: the gap in {in_words(alarms)}."
        if alarms
        else "No gap was shown to come from the teacher; that is not to say that there is none."
    ]
    order = sorted(gaps, key=lambda one: (not one[1]["alarm"], one[0] != "eval", -_size(one[1])))[:MOST]
    names = [
        f"{gap['title']}, {gap['column']} = {gap['group']} ({f'{kind}, ' if several else ''}{gap['rows']:,} rows)"
        for kind, gap in order
    ]
    levels = [
        [name, *three(gap["models"]), with_interval(gap["growth"])]
        for name, (_, gap) in zip(names, order, strict=True)
    ]
    columns = ["inside the group less outside", *WHO, "growth over the teacher"]
    yield Section("Gaps between groups", says, columns, levels, "gaps")
    apart = [
        [name, _with_p(gap["drift"]), _with_p(gap["inherited"])]
        for name, (_, gap) in zip(names, order, strict=True)
    ]
    says = [
        "Each p is of that difference alone; a gap is called inherited if it stands among all of its set."
    ]
    columns = ["the student's gap", "less the teacher's", "less the control's"]
    yield Section("What became of the teacher's gaps", says, columns, apart)


def _size(gap: dict[str, Any]) -> float:
    return abs(float(gap["models"]["student"]["value"] or 0.0))


def _with_p(gap: dict[str, Any] | None) -> str:
    """'0.040 [0.010, 0.070] p = 0.012'; a difference without a p, or none at all, without it."""
    if gap is None or not known(gap["value"]):
        return MISSING
    p = gap.get("p")
    return with_interval(gap) + ("" if p is None else " p < 0.001" if p < 0.001 else f" p = {number(p, 3)}")
