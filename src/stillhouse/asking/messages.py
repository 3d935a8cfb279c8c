"""What is asked, and what came of it."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

from ..files import hash_json
from ..recipe import Api

Status = Literal["answered", "truncated", "filtered", "empty", "refused"]
"""
    answered   a whole answer
    truncated  cut at max_tokens: kept, flagged, not bought again
    filtered   withheld by the provider's filter, or the model declined
    empty      nothing but blanks, twice
    refused    the endpoint refuses this very request (400, 413, 422, such as a prompt that is too long)
"""

Tokens = tuple[tuple[str, dict[str, float]], ...]
"""(token, {alternative: log-probability, in nats, at temperature 1}) one by one."""
WHOLE = {
    "",
    "stop",
    "eos",
    "eos_token",
    "end_turn",
    "stop_sequence",
    "stop_token",
    "complete",
    "completed",
    "done",
}
CUT = {"length", "max_tokens", "max_output_tokens", "max_length", "model_length"}
WITHHELD = {"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii", "refusal"}
BROKEN = {
    "error",
    "abort",
    "aborted",
    "cancelled",
    "network_error",
    "timeout",
    "insufficient_system_resource",
}
"""What servers call the end of an answer, in lower case.  A name that is not among these is not taken for a whole answer."""
HALF = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which JSON can hold and UTF-8 cannot."""

EAST_ASIAN = re.compile("[\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff00-\uffef]")
"""Han, kana, Hangul and their punctuation: three bytes each, and in running text less than two tokens."""

PATHS = {"chat": "/chat/completions", "completions": "/completions"}


@dataclass(frozen=True)
class Request:
    """One question."""

    path: str
    """"/chat/completions" or "/completions"."""
    body: dict[str, Any]
    """What is sent, as JSON."""
    row: str
    """Id of the row it is asked for."""
    purpose: str
    """Why it is asked: "train", "eval", "paraphrase", …"""
    place: str = ""
    """Address of the endpoint."""
    apart: tuple[str, ...] = ()
    """Addresses of other endpoints that the recipe asks for a model of the same name."""

    @cached_property
    def plain(self) -> Any:
        """What is sent as whoever reads the JSON has it: numbers as keys (`logit_bias` in YAML) are words there, and sort as such."""
        return json.loads(json.dumps(self.body))

    @cached_property
    def question(self) -> str:
        """Hash of what is asked: equal questions to models of one name are one, whoever asks them and wherever the model is."""
        return hash_json([self.path, self.plain])

    @cached_property
    def key(self) -> str:
        """What it is called in its recipe and in batches: as `question`, with its address where the recipe has a namesake elsewhere."""
        return self.named(self.place) if self.apart else self.question

    def named(self, place: str) -> str:
        """What the same is called that is asked at `place` in a recipe with a namesake elsewhere."""
        return hash_json([self.path, self.plain, place])

    @property
    def asked(self) -> tuple[str, str]:
        """(model, address)."""
        return str(self.body.get("model")), self.place

    @property
    def size(self) -> int:
        """Tokens it takes to read, about: a token is four bytes of text, and a turn costs some more."""
        return sum(4 + len(str(turn["content"]).encode()) // 4 for turn in self._turns)

    @property
    def _turns(self) -> list[dict[str, Any]]:
        """All messages; a plain prompt as one."""
        return self.body.get("messages") or [{"content": self.body.get("prompt", "")}]

    @property
    def most_read(self) -> int:
        """Tokens it takes to read, at most; see `most_tokens`."""
        return sum(8 + most_tokens(str(turn["content"])) for turn in self._turns)

    @property
    def max_tokens(self) -> int:
        """Tokens that all its answers may take: `extra_body` may name another limit, and answers to choose the best of."""
        limits = [int(self.body.get(name) or 0) for name in ("max_tokens", "max_completion_tokens")]
        return (max(limits) or 1024) * max(1, *(int(self.body.get(name) or 1) for name in ("n", "best_of")))


@dataclass(frozen=True)
class Answer:
    """What is kept of an answer."""

    status: Status
    text: str
    reason: str = ""
    """Why there is no whole answer."""
    tokens: Tokens = ()
    """(token, {alternative, itself included: its log-probability}) one by one, where they were asked for; see `spelled`."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    """Dollars; None if no price is known."""
    counted: bool = True
    """Whether the endpoint said how many tokens it took."""

    @property
    def usable(self) -> bool:
        """Whether there is a whole text to learn from."""
        return self.status == "answered"


def place_of(api: Api, before: Iterable[Api | None]) -> str:
    """What tells a writer from another one of the same name: its endpoint, if the first one that is named before lies elsewhere."""
    places = [one.base_url for one in before if one is not None and one.model == api.model and one.base_url]
    return api.base_url or "" if places and places[0] != api.base_url else ""


def chat(
    api: Api,
    prompt: str | Sequence[dict[str, str]],
    row: str,
    purpose: str,
    *,
    max_tokens: int | None = None,
    **fields: Any,
) -> Request:
    """A question to the chat endpoint, or the same as plain text for `endpoint: completions`.

    Args:
        prompt: the user's message, or all messages.
        fields: further fields of the body, such as seed=3 to ask for another answer to the same prompt.
    """
    turns = (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]
    )
    if api.endpoint == "completions":
        return completion(
            api, "\n\n".join(turn["content"] for turn in turns), row, purpose, max_tokens=max_tokens, **fields
        )
    if api.system is not None and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": api.system}, *turns]
    if api.top_logprobs is not None:
        fields = {"logprobs": True, "top_logprobs": api.top_logprobs, **fields}
    body = {**_common(api, max_tokens), "messages": turns, **fields}
    return Request(PATHS["chat"], body, row, purpose, api.base_url or "", api.namesakes)


def completion(
    api: Api, prompt: str, row: str, purpose: str, *, max_tokens: int | None = None, **fields: Any
) -> Request:
    """A text to go on from."""
    if api.top_logprobs is not None:
        fields = {"logprobs": api.top_logprobs, **fields}
    body = {**_common(api, max_tokens), "prompt": prompt, **fields}
    return Request(PATHS["completions"], body, row, purpose, api.base_url or "", api.namesakes)


def label_question(api: Api, prompt: str, row: str, purpose: str) -> Request:
    """A question that a label's name answers."""
    return chat(api, prompt, row, purpose, max_tokens=16)


def _common(api: Api, max_tokens: int | None) -> dict[str, Any]:
    # OpenAI's reasoning models refuse max_tokens, and other servers do not know its successor
    host = urlsplit(api.base_url or "").hostname or ""
    limit = (
        "max_completion_tokens"
        if "max_completion_tokens" in api.extra_body
        or (host.endswith("api.openai.com") and api.endpoint == "chat")
        else "max_tokens"
    )
    body: dict[str, Any] = {"model": api.model, limit: api.max_tokens or max_tokens or 1024}
    if api.temperature is not None:
        body["temperature"] = api.temperature
    return {**body, **api.extra_body}


class BrokenOff(str):
    """What is wrong with an answer that ended in an error: the next one may be whole."""


def read_answer(body: Any) -> Answer | str:
    """The JSON of a response -> an answer without its cost, or what is wrong with it."""
    body = sound(body)
    if not isinstance(body, dict):
        return "the answer is no JSON object"
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "the answer has no choices"
    choice, finish = choices[0], str(choices[0].get("finish_reason") or "").lower()
    if finish in BROKEN:
        return BrokenOff(f"the answer broke off ({finish})")
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    declined = message.get("refusal") if isinstance(message, dict) else None
    if isinstance(text, list):
        text = _joined(text)
    if text is not None and not isinstance(text, str):
        return "the answer's content is no text"
    read, written = usage_of(body)
    status: Status = "answered"
    reason = ""
    if finish in WITHHELD or declined:
        status, reason = "filtered", "filtered by the provider" if finish in WITHHELD else "declined"
    elif finish in CUT:
        status, reason = "truncated", "cut at max_tokens"
    elif not (text or "").strip():
        status, reason = "empty", "empty answer"
    elif finish not in WHOLE:
        status, reason = "truncated", f"ended by {finish}"
    return Answer(
        status,
        text or str(declined or ""),
        reason,
        _tokens(choice.get("logprobs")),
        read or 0,
        written or 0,
        counted=read is not None and (written is not None if not text else bool(written)),
    )


def sound(value: Any) -> Any:
    """JSON whose texts can be written down: half a surrogate pair becomes U+FFFD."""
    if isinstance(value, str):
        return HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [sound(one) for one in value]
    return {sound(name): sound(one) for name, one in value.items()} if isinstance(value, dict) else value


def usage_of(body: Any) -> tuple[int | None, int | None]:
    """(tokens read, tokens written) as the response states them; None where it does not: 0 read is said of no prompt."""
    usage = body.get("usage") if isinstance(body, dict) else None
    stated = [
        usage.get(name) if isinstance(usage, dict) else None
        for name in ("prompt_tokens", "completion_tokens")
    ]
    read, written = (count if isinstance(count, int) and count >= 0 else None for count in stated)
    return read or None, written


def most_tokens(text: str) -> int:
    """Tokens of a text, at most: two bytes a token in ASCII, where a digit is one, two tokens a character of Han, kana and Hangul,
    and a byte a token in all other scripts and emoji, which no tokenizer on bytes exceeds."""
    ascii_, digits = len(text.encode("ascii", "ignore")), sum(map(text.count, "0123456789"))
    east = len(EAST_ASIAN.findall(text))
    others = len(text.encode()) - ascii_ - 3 * east
    return (ascii_ + digits + 1) // 2 + 2 * east + others


def estimated(answer: Answer, request: Request) -> Answer:
    """The answer with tokens counted by its text where its endpoint did not say: rather too many, so that `max_cost` holds."""
    most = most_tokens(answer.text) + 1
    if answer.status in ("truncated", "empty"):  # all that it was allowed, or thoughts that are not shown
        most = request.max_tokens
    return replace(
        answer,
        input_tokens=answer.input_tokens or request.most_read,
        output_tokens=answer.output_tokens or min(most, request.max_tokens),
    )


def _joined(parts: list[Any]) -> Any:
    """The text of a content in parts, without thoughts; the parts themselves if there is anything else among them."""
    kinds = [one.get("type") if isinstance(one, dict) else None for one in parts]
    texts = [one.get("text") for one, kind in zip(parts, kinds, strict=True) if kind == "text"]
    whole = {"text"} <= set(kinds) <= {"text", "thinking", "reasoning"}
    return "".join(texts) if whole and all(isinstance(text, str) for text in texts) else parts


def _tokens(found: Any) -> Tokens:
    """Log-probabilities as the chat endpoint writes them (`content`), or as the completions endpoint does (`top_logprobs`)."""
    if not isinstance(found, dict):
        return ()
    try:
        if found.get("content"):
            return tuple(
                (_name(one), _finite({**_pairs(one.get("top_logprobs") or []), _name(one): one["logprob"]}))
                for one in found["content"]
            )
        if found.get("tokens"):
            best = found.get("top_logprobs") or [{}] * len(found["tokens"])
            own = found.get("token_logprobs") or [None] * len(found["tokens"])
            return tuple(
                (token, _finite({**(others or {}), **({} if mine is None else {token: mine})}))
                for token, others, mine in zip(found["tokens"], best, own, strict=True)
            )
    except (KeyError, TypeError, ValueError):
        return ()
    return ()


def _pairs(listed: list[dict[str, Any]]) -> dict[str, float]:
    return {_name(one): one["logprob"] for one in listed}


def _name(one: dict[str, Any]) -> str:
    """A token's text; of a piece of a character its bytes, as OpenAI's completions endpoint writes them: "bytes:\\xe2\\x82"."""
    token, raw = one["token"], one.get("bytes")
    if not isinstance(token, str):
        raise TypeError(token)
    if raw is None or numbered(token) is not None:
        return token
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def numbered(name: str) -> int | None:
    """The id in "token_id:17", as vLLM names tokens with `return_tokens_as_token_ids`; None in any other name."""
    found = re.fullmatch(r"token_id:(\d{1,9})", name)
    return None if found is None else int(found[1])


def spelled(name: str) -> bytes | None:
    """The bytes of a token by its name; None where it only stands for bytes that nobody knows (U+FFFD)."""
    if re.match(r"bytes:.*\\x[0-9a-f]{2}", name):
        escaped = name.removeprefix("bytes:").encode()
        return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), escaped)
    return None if "\ufffd" in name else name.encode()


def _finite(values: dict[str, float]) -> dict[str, float]:
    """OpenAI writes −9999 for what is not among the best; JSON has no −inf."""
    return {token: float(value) for token, value in values.items() if -1000 < float(value) <= 1e-6}
