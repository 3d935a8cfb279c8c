"""Rows -> what a writer is asked, and its texts -> rows.

Each kind of `data.generate` is a function from training rows to `Ask`s: a prompt, and what becomes of the answer.  Nobody here
knows who writes.  Texts of a writer are data: they are never executed and never a template.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..recipe import generate as kinds
from ..seeds import draw_seed
from .filters.texts import answer_of, words
from .formats import Message, Row, nobody_asks, reasoned, with_id
from .prompting import Prompt
from .split import in_order
from .templates import fill

Template = Callable[[str], str]
"""Name of a prompt -> its text."""


@dataclass(frozen=True)
class Ask:
    """One prompt, and the row that its answer makes."""

    prompt: Prompt
    row: Callable[[str], Row | str]
    """The answer -> a row, or the reason why there is none."""
    where: str
    """Of the row it goes back to."""


def said(text: str) -> list[Message]:
    """`text` as the only turn of a conversation."""
    return [{"role": "user", "content": text}]


def prompt_of(row: Row) -> Prompt:
    """What comes before a row's answer, if it has one."""
    if "messages" not in row:
        return row["prompt"]
    turns = row["messages"]
    return turns[:-1] if turns[-1]["role"] == "assistant" else turns


def asks(row: Row) -> bool:
    """Whether there is a question before a row's answer."""
    prompt = prompt_of(row)
    return bool(prompt) and (isinstance(prompt, str) or not nobody_asks(prompt))


def is_answered(row: Row) -> bool:
    """Whether a row that asks has an answer: who has a teacher behind an API may have questions alone."""
    last = row["messages"][-1] if "messages" in row else None
    if last is not None:
        return last["role"] == "assistant" and bool(last["content"].strip())
    return bool(row.get("completion", "").strip())


def answered(row: Row, answer: str, where: str | None = None) -> Row | str:
    """`row` with another answer."""
    if not answer.strip():
        return "empty answer"
    new: Row = {**row, "where": where or row["where"], "written": True}
    new.pop("rationale", None)  # of the answer that was there
    if "messages" in row:
        before = prompt_of(row)
        assert not isinstance(before, str)
        new["messages"] = [*before, {"role": "assistant", "content": answer.strip()}]
    else:
        new["completion"] = answer
    return with_id(new)


def asked_of(row: Row) -> str:
    """The text that a row is about: its question, or else the text."""
    if "messages" in row:
        before = prompt_of(row) or row["messages"]
        assert not isinstance(before, str)
        return before[-1]["content"]
    return row["prompt"] if "prompt" in row else row["text"]


def exchange(row: Row) -> tuple[str, str]:
    """(all that was said before a row's answer, but the system's turn; the answer)."""
    if "messages" in row:
        before = [turn["content"] for turn in row["messages"][:-1] if turn["role"] != "system"]
        return "\n\n".join(before), row["messages"][-1]["content"]
    return row["prompt"], row["completion"].strip()


def reworded(row: Row, text: str, where: str, label: str | None = None, keep: bool = True) -> Row | str:
    """`row` about another text; its label, or a new one, only if it is to be kept."""
    text = text.strip()
    if not text:
        return "empty answer"
    if words(text) == words(asked_of(row)):
        return "unchanged"
    new: Row = {**row, "where": where}
    if "messages" in row:
        turns, asking = row["messages"], len(prompt_of(row))
        if asking:
            new["messages"] = [*turns[: asking - 1], {"role": "user", "content": text}, *turns[asking:]]
    elif "prompt" in row:
        new["prompt"] = text
    else:
        new["text"] = text
    if "label" in row:
        if keep:
            new["label"] = label or row["label"]
        else:
            del new["label"]
    return with_id(new)


# ── one function a kind ─────────────────────────────────────────────────────────────────────────────────────────────


def paraphrases(rows: Sequence[Row], wanted: kinds.Paraphrase, prompt: Template) -> Iterator[Ask]:
    """`wanted.copies` of each row in other words."""
    for row in rows:
        for copy in range(wanted.copies):
            where = f"{row['where']}~paraphrase{copy + 1}"
            yield Ask(
                said(fill(prompt("paraphrase"), text=asked_of(row))),
                lambda text, row=row, where=where: reworded(row, text, where, keep=wanted.keep_label),  # type: ignore[misc]
                where,
            )


def translations(rows: Sequence[Row], wanted: kinds.BackTranslation, prompt: Template) -> Iterator[Ask]:
    """Each row's text in the other language."""
    for row in rows:
        asked = said(fill(prompt("translate"), text=asked_of(row), language=wanted.language))
        where = f"{row['where']}~back_translation"
        yield Ask(asked, lambda text, row=row, where=where: reworded(row, text, where), where)  # type: ignore[misc]


def translations_back(
    rows: Sequence[tuple[Row, Row]], wanted: kinds.BackTranslation, prompt: Template
) -> Iterator[Ask]:
    """Args: rows: (a row, the same in the other language)."""
    for row, foreign in rows:
        asked = said(fill(prompt("translate_back"), text=asked_of(foreign), example=asked_of(row)))
        where = foreign["where"]
        yield Ask(
            asked,
            lambda text, row=row, where=where: reworded(row, text, where, keep=wanted.keep_label),  # type: ignore[misc]
            where,
        )


def new_tasks(rows: Sequence[Row], wanted: kinds.SelfInstruct, prompt: Template, seed: int) -> Iterator[Ask]:
    """Questions in the manner of some rows, drawn anew each time; nobody has answered them yet."""
    for number in range(wanted.rows if rows else 0):
        if wanted.of is None:
            shown = _some(rows, wanted.examples, seed, "self_instruct", number)
        else:  # of listed rows one may be missing, which changes no draw that it was not in
            shown = in_order(rows, seed, "self_instruct", str(number))[: wanted.examples]
        where = f"self_instruct:{number + 1}"
        yield Ask(
            said(fill(prompt("self_instruct"), examples=_list(asked_of(row) for row in shown))),
            lambda text, row=shown[0], where=where: _unanswered(row, text, where),  # type: ignore[misc]
            where,
        )


def harder(rows: Sequence[Row], wanted: kinds.EvolInstruct, prompt: Template, round: int) -> Iterator[Ask]:
    """Each row's question made harder; nobody has answered it yet."""
    for row in rows:
        where = f"{row['where'].partition('~evol')[0]}~evol{round + 1}"
        yield Ask(
            said(fill(prompt("evol_instruct"), text=asked_of(row))),
            lambda text, row=row, where=where: _unanswered(row, text, where),  # type: ignore[misc]
            where,
        )


def answers(rows: Sequence[Row]) -> Iterator[Ask]:
    """Each row's question itself."""
    for row in rows:
        yield Ask(prompt_of(row), lambda text, row=row: answered(row, text), row["where"])  # type: ignore[misc]


def rationales(rows: Sequence[Row], prompt: Template) -> Iterator[Ask]:
    """Each row's answer, its reasons before it; rows that give reasons already, or no answer, are left as they are."""
    for row in rows:
        if "rationale" in row or not is_answered(row):
            continue
        where = f"{row['where']}~rationale"

        def with_reasons(text: str, row: Row = row, where: str = where) -> Row | str:
            if not text.strip():
                return "empty answer"
            return reasoned({**row, "where": where, "written": True}, text)

        yield Ask(
            said(fill(prompt("rationale"), question=asked_of(row), answer=answer_of(row).strip())),
            with_reasons,
            where,
        )


def hard_negatives(
    rows: Sequence[Row], wanted: kinds.HardNegatives, prompt: Template, seed: int
) -> Iterator[Ask]:
    """Each labelled text, changed to belong to another label."""
    labels = sorted({row["label"] for row in rows if "label" in row})
    for row in rows:
        others = [label for label in labels if label != row.get("label")]
        if "label" not in row or not others:
            continue
        other = others[draw_seed(seed, "hard_negatives", row["id"]) % len(others)]
        where = f"{row['where']}~{other}"
        yield Ask(
            said(fill(prompt("hard_negative"), text=row["text"], label=row["label"], other=other)),
            lambda text, row=row, where=where, other=other: reworded(  # type: ignore[misc]
                row, text, where, label=other, keep=wanted.keep_label
            ),
            where,
        )


def balancing(
    rows: Sequence[Row],
    wanted: kinds.Balance,
    prompt: Template,
    seed: int,
    is_there: Callable[[Row], bool] = lambda row: True,
) -> Iterator[Ask]:
    """Texts for the labels that have fewer rows than the largest; as many as there may be, if some rows are not there yet."""
    by_label: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "label" in row:
            by_label[row["label"]].append(row)
    for label, own in sorted(by_label.items()):
        largest = max((len(rows) for other, rows in by_label.items() if other != label), default=0)
        for number in range(min(wanted.most, largest - sum(map(is_there, own)))):
            shown = _some(own, wanted.examples, seed, "balance", label, number)
            where = f"balance:{label}:{number + 1}"
            yield Ask(
                said(fill(prompt("balance"), examples=_list(row["text"] for row in shown), label=label)),
                lambda text, row=shown[0], where=where: reworded(row, text, where, keep=wanted.keep_label),  # type: ignore[misc]
                where,
            )


# ── what the answers agree on ───────────────────────────────────────────────────────────────────────────────────────


_MARKED = re.compile(r"(?:\\boxed\{|####|\banswer(?: is)?:?)\s*([^\n}]+)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def final_answer(text: str) -> str:
    """What an answer comes to: what follows a mark (`####`, `\\boxed{`, "answer is"), or its last number, or all its words."""
    marked = _MARKED.findall(text)
    last = marked[-1] if marked else text
    if numbers := _NUMBER.findall(last):
        return str(numbers[-1]).replace(",", "").rstrip(".")
    return " ".join(words(last))


def _unanswered(row: Row, text: str, where: str) -> Row | str:
    """A question of the writer's in the form of `row`, without an answer."""
    new = reworded(row, text, where)
    if isinstance(new, str):
        return new
    new.pop("rationale", None)
    if "messages" in new:  # of a conversation the last question only
        before = new["messages"][: len(prompt_of(new))]
        turns = [turn for turn in before[:-1] if turn["role"] == "system"]
        new["messages"] = [*turns, *before[-1:], {"role": "assistant", "content": ""}]
    elif "prompt" in new:
        new["completion"] = ""
    return with_id(new)


def _some(rows: Sequence[Row], count: int, seed: int, *what: str | int) -> list[Row]:
    draw = np.random.default_rng(draw_seed(seed, *what))
    return [rows[int(at)] for at in draw.choice(len(rows), min(count, len(rows)), replace=False)]


def _list(texts: Iterator[str]) -> str:
    return "\n\n".join(f"{number}. {text.strip()}" for number, text in enumerate(texts, 1))
