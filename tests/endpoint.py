"""An OpenAI-compatible endpoint on loopback that fails as real ones do, by rate, and counts what it billed.

In a test: `with Endpoint(answer) as endpoint: … endpoint.url`.  As a process of its own: `python tests/endpoint.py '{"seed": 1, …}'`,
which prints its URL; GET /stats tells what happened.  What goes wrong with an attempt follows from (seed, prompt, number of
the attempt), so that two runs meet the same weather.
"""

import asyncio
import hashlib
import json
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self

Token = str | bytes
"""A token by its text or by its bytes, which need not be whole characters."""
Tokens = list[tuple[Token, dict[Token, float]]]
Said = str | tuple[str, Tokens]
"""A text, or a text with (token, {alternative: log-probability})."""


@dataclass(frozen=True)
class Weather:
    """Shares of all attempts, and seconds."""

    seed: int = 0
    throttled: float = 0.0
    """429, half of them with Retry-After, of these half as seconds and half as a date."""
    broken: float = 0.0
    """500 and 503."""
    garbage: float = 0.0
    """200 with cut JSON, or none."""
    hang: float = 0.0
    dropped: float = 0.0
    """The connection breaks in the middle of the body."""
    empty: float = 0.0
    """200 with no body."""
    too_long: float = 0.0
    """Share of the prompts, whatever the attempt: 400, context length exceeded."""
    latency: float = 0.0
    retry_after: float = 1.0


@dataclass
class Seen:
    """What the endpoint remembers."""

    outcomes: Counter[str] = field(default_factory=Counter)
    billed: Counter[str] = field(default_factory=Counter)
    """"delivered", "spoilt" (made, and lost by a fault of ours) or "abandoned" (the client was gone)."""
    delivered: Counter[str] = field(default_factory=Counter)
    """prompt -> whole answers sent."""
    too_early: int = 0
    """Attempts before their Retry-After was over."""
    after_refusal: int = 0
    """Attempts after a 4xx that is final."""
    most_at_once: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            **{
                name: dict(value) if isinstance(value, Counter) else value
                for name, value in vars(self).items()
            },
            "delivered": len(self.delivered),
            "delivered_twice": sum(count - 1 for count in self.delivered.values()),
        }


class Endpoint:
    """Such a server, in a thread of its own."""

    def __init__(
        self,
        answer: Callable[[dict[str, Any]], Said] = lambda body: f"Said: {prompt_of(body)}",
        weather: Weather | None = None,
        key: str | None = None,
        script: list[Any] | None = None,
    ) -> None:
        """script: what the first attempts meet instead: (status, headers, body text), one each."""
        self.answer, self.weather, self.key = answer, weather or Weather(), key
        self.script = list(script or [])
        self.seen, self.bodies = Seen(), list[dict[str, Any]]()
        self._tries: Counter[str] = Counter()
        self._not_before: dict[str, float] = defaultdict(float)
        self._refused: set[str] = set()
        self._open = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        server = self._loop.run_until_complete(
            asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024)
        )
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self._open += 1
                self.seen.most_at_once = max(self.seen.most_at_once, self._open)
                try:
                    await self._request(first.split()[1], headers, body, reader, writer)
                finally:
                    self._open -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _request(
        self,
        path: str,
        headers: dict[str, str],
        raw: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if path == "/stats":
            return await _respond(writer, 200, json.dumps(self.seen.as_json()))
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            self.seen.outcomes["401"] += 1
            return await _respond(
                writer, 401, _error(f"Incorrect API key provided: {headers.get('authorization', '')[7:]}")
            )
        body = json.loads(raw)
        self.bodies.append(body) if len(self.bodies) < 1000 else None
        prompt = prompt_of(body)
        name = hashlib.sha256(raw).hexdigest()[:16]
        self.seen.too_early += time.time() < self._not_before[name]
        self.seen.after_refusal += name in self._refused
        self._tries[name] += 1
        if self.script:
            status, more, text = self.script.pop(0)
            self.seen.outcomes[str(status)] += 1
            return await _respond(writer, status, text, more)
        fault = self._fault(name)
        self.seen.outcomes[fault or "200"] += 1
        if fault in ("429", "500", "503", "400"):
            return await self._refuse(writer, name, fault)
        if fault == "hang":
            self.seen.billed["spoilt"] += 1
            await asyncio.sleep(3600)
        await asyncio.sleep(self.weather.latency)
        text = self._answered(body, prompt)
        if reader.at_eof():  # a client that was killed
            self.seen.billed["abandoned"] += 1
            return None
        if fault is None:
            self.seen.billed["delivered"] += 1
            self.seen.delivered[name] += 1
            return await _respond(writer, 200, text)
        self.seen.billed["spoilt"] += 1
        if fault == "dropped":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text[:40]}".encode())
            writer.close()
            raise ConnectionError
        cut = {"empty": "", "garbage": text[: len(text) // 2]}[fault]
        return await _respond(writer, 200, cut)

    def _fault(self, name: str) -> str | None:
        """What goes wrong with this attempt."""
        weather = self.weather
        if random.Random(f"{weather.seed} {name}").random() < weather.too_long:
            return "400"
        draw = random.Random(f"{weather.seed} {name} {self._tries[name]}").random()
        for fault in ("throttled", "broken", "garbage", "hang", "dropped", "empty"):
            share: float = getattr(weather, fault)
            if draw < share:
                return {"throttled": "429", "broken": "500" if draw < share / 2 else "503"}.get(fault, fault)
            draw -= share
        return None

    async def _refuse(self, writer: asyncio.StreamWriter, name: str, fault: str) -> None:
        headers = {}
        if fault == "400":
            self._refused.add(name)
            return await _respond(writer, 400, _error("This model's maximum context length is 4096 tokens."))
        draw = random.Random(f"{name} {self._tries[name]}").random()
        if fault == "429" and draw < 0.5:
            now, wait = time.time(), self.weather.retry_after
            if draw < 0.25:
                headers["Retry-After"] = f"{wait:g}"
                self._not_before[name] = now + wait
            else:
                then = int(now + wait) + 1
                headers |= {
                    "Retry-After": formatdate(then, usegmt=True),
                    "Date": formatdate(now, usegmt=True),
                }
                self._not_before[name] = then
        await _respond(writer, int(fault), _error("Slow down." if fault == "429" else "Try again."), headers)

    def _answered(self, body: dict[str, Any], prompt: str) -> str:
        said = self.answer(body)
        text, tokens = (said, None) if isinstance(said, str) else said
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        limit = body.get("max_tokens", body.get("max_completion_tokens", 1 << 30))
        words = text.split(" ")
        if len(words) > limit:
            text, choice["finish_reason"] = " ".join(words[:limit]), "length"
        chat = "messages" in body
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        if tokens is not None and body.get("logprobs"):
            choice["logprobs"] = _logprobs(tokens, chat)
        usage = {"prompt_tokens": len(prompt) // 4 + 4, "completion_tokens": min(len(words), limit)}
        return json.dumps(
            {
                "id": "x",
                "object": "chat.completion",
                "model": body["model"],
                "choices": [choice],
                "usage": usage,
            }
        )


def prompt_of(body: dict[str, Any]) -> str:
    """What the user said last."""
    return str(body["messages"][-1]["content"] if "messages" in body else body["prompt"])


def _logprobs(tokens: Tokens, chat: bool) -> dict[str, Any]:
    """As OpenAI writes them: pieces of characters are told by their bytes, each endpoint in its own way."""
    if not chat:
        return {
            "tokens": [_escaped(token) for token, _ in tokens],
            "token_logprobs": [others[token] for token, others in tokens],
            "top_logprobs": [{_escaped(t): p for t, p in others.items()} for _, others in tokens],
        }
    return {
        "content": [
            {**_named(token), "logprob": others[token], "top_logprobs": [{**_named(t), "logprob": p} for t, p in others.items()]}
            for token, others in tokens
        ]
    }  # fmt: skip


def _text(token: Token) -> str:
    return token if isinstance(token, str) else token.decode(errors="replace")


def _escaped(token: Token) -> str:
    text = _text(token)
    if isinstance(token, str) or "\ufffd" not in text:
        return text
    return "bytes:" + "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in token)


def _named(token: Token) -> dict[str, Any]:
    return {"token": _text(token), "bytes": list(token.encode() if isinstance(token, str) else token)}


def _error(message: str) -> str:
    return json.dumps({"error": {"message": message, "type": "error", "code": None}})


async def _respond(
    writer: asyncio.StreamWriter, status: int, text: str, headers: dict[str, str] | None = None
) -> None:
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    data = text.encode()
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{more}\r\n"
    )
    writer.write(head.encode() + data)
    await writer.drain()


if __name__ == "__main__":
    with Endpoint(weather=Weather(**json.loads(sys.argv[1]))) as endpoint:
        print(endpoint.url, flush=True)
        threading.Event().wait()
