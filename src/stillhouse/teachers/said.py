"""What a teacher said in words -> what a student can learn from: a label's number, its probabilities, a whole row.

A teacher's text is data.  It is compared with the labels' names, or becomes the content of a turn; it is never run, never
taken for a template, and never read for control tokens.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from ..asking import Answer, Request, chat, completion
from ..asking.messages import Tokens, label_question, spelled
from ..data.encode import COMMON_CONTROL, without_control
from ..data.formats import Row
from ..data.prompting import Prompt
from ..data.templates import fill_label, label_prompts, prompt_said, template
from ..data.written import prompt_of
from ..errors import RecipeError
from ..recipe import Api

SMALLEST = 1e-6
"""Probability of a label that the teacher did not mention."""
AROUND = " \t\r\n\"'`*.:_"
"""Quotes, emphasis and full stops that models put around a word."""
CONTROL_TOKEN = "control token in the answer"
END_OF_THOUGHTS = re.compile(r"""(?:(?<![`'"])</think>|</think>(?![`'"]))(?![ \t]+\S|[,.;:!?)\]])""")
"""Where no <think> stands before it: neither in quotes nor amid a sentence, as in a text that only mentions it.  DeepSeek writes
the answer right behind it, others on a line of its own."""


def asked_about(
    rows: Sequence[dict[str, Any]],
    task: str,
    labels: Sequence[str],
    api: Api,
    purpose: str,
    field: str = "teacher.api",
) -> list[Request]:
    """What a teacher is asked about each of some rows of a task.

    Raises: RecipeError if the file is not there that the prompt names in `field` of the recipe, or labels have words alike.
    """
    if task == "classification":
        return questions_about(rows, words_of(labels, api, field), api, purpose, field)
    if task == "seq2seq":
        return questions_with(rows, api, purpose, field)
    return [question_of(row, api, purpose) for row in rows]


def questions_about(
    rows: Sequence[dict[str, Any]], words: Sequence[str], api: Api, purpose: str, field: str = "teacher.api"
) -> list[Request]:
    """What is asked about each of some rows to be classified: `api.prompt`, or else our own for its endpoint.

    Raises: RecipeError if the file is not there that the prompt names in `field` of the recipe.
    """
    own = label_prompts(api.prompt, api.endpoint == "completions", f"{field}.prompt")
    return [label_question(api, _filled(own["pair" in row], row, words), row["id"], purpose) for row in rows]


def _filled(prompt: str, row: dict[str, Any], words: Sequence[str]) -> str:
    """The prompt with the row's texts, as data, and the labels."""
    values = {"text": plain(row["text"]), "pair": plain(row.get("pair", "")), "labels": ", ".join(words)}
    return fill_label(prompt, values)


def questions_with(
    rows: Sequence[dict[str, Any]], api: Api, purpose: str, field: str = "teacher.api"
) -> list[Request]:
    """What is asked about each source of an encoder–decoder: `api.prompt` with the source, as data, or the source alone.

    Raises: as `questions_about`.
    """
    asked = prompt_said(api.prompt, "source", f"{field}.prompt") or template("source", None)
    return [_question(asked.replace("{text}", plain(row["prompt"])), row, api, purpose) for row in rows]


def question_of(row: dict[str, Any], api: Api, purpose: str) -> Request:
    """The question of a row that wants a text."""
    return _question(as_sent(prompt_of(cast(Row, row))), row, api, purpose)


def _question(prompt: str | list[dict[str, str]], row: dict[str, Any], api: Api, purpose: str) -> Request:
    """A prompt in the form of the API's endpoint."""
    if isinstance(prompt, str) and api.endpoint == "completions":
        return completion(api, prompt, row["id"], purpose)
    return chat(api, prompt, row["id"], purpose)


def as_sent(prompt: Prompt) -> str | list[dict[str, str]]:
    """A prompt as a stranger's model reads it: as data."""
    if isinstance(prompt, str):
        return plain(prompt)
    return [{"role": turn["role"], "content": plain(turn["content"])} for turn in prompt]


def plain(text: str) -> str:
    """`text` as a stranger's model reads it: as data."""
    return without_control(text, COMMON_CONTROL)


def without_thoughts(text: str) -> str:
    """`text` without the block of thoughts that it begins with; some servers leave its first mark to the prompt."""
    if text.lstrip().startswith("<think>"):
        _, mark, rest = text.partition("</think>")
        return rest.lstrip() if mark else text
    found = END_OF_THOUGHTS.search(text)
    return text[found.end() :].lstrip() if found and "<think>" not in text[: found.start()] else text


Spell = Callable[[str], bytes | None]


def behind_thoughts(answer: Answer, spell: Spell = spelled) -> Answer:
    """`answer` without thoughts, in its text and in its tokens; without tokens where none of them spell the text.

    A server may tell the tokens of thoughts that its text does not have.

    Args: spell: the bytes of a token by its name.
    """
    text = without_thoughts(answer.text)
    return replace(answer, text=text, tokens=_tokens_of(text, answer.tokens, spell))


def _tokens_of(text: str, tokens: Tokens, spell: Spell) -> Tokens:
    """The last of `tokens`, from where they spell `text` on; an end token may follow it, and space in front is kept if nothing else is."""
    wanted = text.encode().strip()
    pieces = [spell(name) for name, _ in tokens]
    for start in reversed(range(len(pieces))):
        said = b""
        for piece in pieces[start:]:
            if piece is None or not wanted.startswith(said):
                break
            said = (said + piece).lstrip()
            if said.rstrip() == wanted:
                return (
                    tokens[start:] if any(each is None or each.strip() for each in pieces[:start]) else tokens
                )
    return ()


def confidence_in(answer: Answer, spell: Spell = spelled) -> float | None:
    """The geometric mean of the probabilities of the answer's tokens, those of its thoughts left aside; None if they are not known."""
    log_p = [others.get(token) for token, others in behind_thoughts(answer, spell).tokens]
    known = [one for one in log_p if one is not None]
    return math.exp(sum(known) / len(known)) if known and len(known) == len(log_p) else None


def answered_row(row: dict[str, Any], text: str, api: Api, task: str = "causal_lm") -> dict[str, Any]:
    """The row with the teacher's text in the place of its answer, and without the reasons of the answer that was there."""
    row = {name: value for name, value in row.items() if name != "rationale"}
    if "messages" in row:
        return {**row, "messages": [*prompt_of(cast(Row, row)), {"role": "assistant", "content": text}]}
    if task == "seq2seq":  # a decoder's text begins by itself, behind no prompt
        return {**row, "completion": text.strip()}
    return {**row, "completion": after(row["prompt"], text, api)}


def after(prompt: str, text: str, api: Api) -> str:
    """The teacher's text as what comes after a plain prompt: what was a turn of its own becomes the end of a line."""
    if api.endpoint != "chat":
        return text
    return text.strip() if prompt[-1:].isspace() else f" {text.strip()}"


def has_control_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer would read some of `text` as a control token, such as an end of turn."""
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return not control.isdisjoint(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


# ── labels ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def words_of(labels: Sequence[str], api: Api, field: str = "teacher.api") -> list[str]:
    """The teacher's word for each label; `field` is where the recipe names it.  Raises: RecipeError if two cannot be told apart."""
    words = [api.label_words.get(label, label) for label in labels]
    folded = [_bare(word) for word in words]
    if len(set(folded)) < len(words) or not all(folded):
        raise RecipeError(
            f"{field}.labels: the words {', '.join(map(repr, words))} cannot be told apart when case, quotes and full "
            "stops are left aside; give each label a word of its own."
        )
    return words


def label_shares(answer: Answer | None, words: Sequence[str]) -> list[float] | str:
    """The probability of each label, or why there is none.

    With log-probabilities they are the teacher's own; without, or where the tokens do not spell the answer, the label that it
    named has nearly all.  In each case the whole answer must be a label.
    """
    if answer is None:
        return "not among the past answers"
    if not answer.usable:
        return answer.reason.partition(":")[0] if answer.status == "refused" else answer.reason
    named = parsed_label(answer.text, words)
    if named is None:
        return "the answer is no label"
    shares = told_shares(answer, words)
    if shares is None:
        shares = [float(number == named) for number in range(len(words))]
    floored = [max(share, SMALLEST) for share in shares]
    return [share / sum(floored) for share in floored]


def told_shares(answer: Answer, words: Sequence[str]) -> list[float] | None:
    """The teacher's own probability of each label; None without log-probabilities that spell the answer."""
    tokens = behind_thoughts(answer).tokens
    return shares_of_tokens(tokens, words) if tokens else None


def parsed_label(text: str, words: Sequence[str]) -> int | None:
    """The number of the label that `text` is, case, quotes and full stops left aside; None if it is none."""
    said = _bare(without_thoughts(text))
    return next((number for number, word in enumerate(words) if _bare(word) == said), None)


def shares_of_tokens(
    tokens: Sequence[tuple[str, dict[str, float]]], words: Sequence[str]
) -> list[float] | None:
    """Each label's probability by the tokens' alternatives; None if they hold no label at all.

    The answer is followed token by token.  At each, the probability of an alternative belongs to the labels that begin
    with what it would have made of the answer (in equal parts, if several do), until the answer itself is one label only.
    What leads to no label is left out, and the rest scaled to 1.
    """
    found = [0.0] * len(words)
    said, mass = "", 1.0
    for token, others in tokens:
        if token not in others:
            return None
        here = _beginning_with(said + token, words)
        for other, log_p in others.items():
            if other != token and (names := _beginning_with(said + other, words)) and _bare(said + other):
                for number in names:
                    found[number] += mass * math.exp(log_p) / len(names)
        said, mass = said + token, mass * math.exp(others[token])
        if _bare(said) and len(here) <= 1:
            break
    whole = [number for number, word in enumerate(words) if _bare(word) == _bare(said)]
    for number in (names := whole or _beginning_with(said, words)):
        found[number] += mass / len(names)
    total = sum(found)
    return [share / total for share in found] if total > 0 else None


def _beginning_with(text: str, words: Sequence[str]) -> list[int]:
    """The labels that `text` is the beginning of."""
    start = text.lstrip(AROUND).casefold()
    exact = _exactly(text, words)
    return exact or [number for number, word in enumerate(words) if _bare(word).startswith(start)]


def _exactly(text: str, words: Sequence[str]) -> list[int]:
    """The label that `text` is, unless it also begins a longer one."""
    said = _bare(text)
    found = [number for number, word in enumerate(words) if _bare(word) == said]
    longer = any(_bare(word).startswith(said) and _bare(word) != said for word in words)
    return [] if longer else found


def _bare(text: str) -> str:
    return text.strip(AROUND).casefold()
