"""One request to an OpenAI-compatible endpoint, and what its reply means."""

import asyncio
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

from ..errors import RecipeError
from ..recipe import Api, Price
from ..registry import require
from .messages import Answer, BrokenOff, Request, estimated, read_answer, sound, usage_of

FATAL = {
    401: "the key is refused",
    402: "the account has no credit",
    403: "access is refused",
    404: "there is no such model or path",
}
"""Of every request alike, so the first one is the last."""
THROTTLED = (429,)
PASSING = (408, 409, 425)
"""4xx that say nothing about the request: it took too long, met another, or came too early."""


CONNECTING = 0.3
"""Of the time for an answer, what a connection may take; TCP and TLS each have as much."""


@dataclass(frozen=True)
class Retry:
    """Something that may pass."""

    reason: str
    after: float | None = None
    """Seconds that the endpoint asks to wait (Retry-After)."""
    throttled: bool = False
    """Whether it says that we are too fast."""
    billed: bool = False
    """Whether an answer was made, and lost on the way."""
    cost: float | None = None
    """Dollars, if it says what it took."""
    by_form: bool = False
    """Whether it is whole, and its form is none that is known here: it would come again."""


@dataclass(frozen=True)
class Fatal:
    """Something that no other request would escape."""

    sentence: str


Reply = Answer | Retry | Fatal


def secret_of(api: Api, field: str = "teacher.api") -> str:
    """The key, from the environment.  Raises: RecipeError if the variable that is named does not exist, or cannot be sent."""
    if api.api_key_env is None:
        return "none"  # never the client's own guess: OPENAI_API_KEY belongs to one host only
    if not (found := os.environ.get(api.api_key_env, "").strip()):
        raise RecipeError(
            f"{field}.api_key_env: the environment has no {api.api_key_env}; export {api.api_key_env}=… and run again."
        )
    if not (found.isascii() and found.isprintable()):
        raise RecipeError(
            f"{field}.api_key_env: the key in {api.api_key_env} has a character that no key has (a typographic dash, an umlaut, a "
            "line break); copy it anew."
        )
    return found


class Endpoint:
    """A client for one run of the loop; `close` it."""

    def __init__(self, api: Api, field: str = "teacher.api") -> None:
        """Raises: MissingExtra without the package openai; RecipeError without the key."""
        openai = require("openai", field)
        self._http = require("httpx2", field)
        self._openai = openai
        self._secret = secret_of(api, field)
        self._api = api
        # a connection must fail before the whole does: what was never sent is not billed
        times = self._http.Timeout(
            api.timeout, connect=CONNECTING * api.timeout, pool=CONNECTING * api.timeout
        )
        self._client = openai.AsyncOpenAI(
            base_url=api.base_url, api_key=self._secret, max_retries=0, timeout=times
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.close()

    async def send(self, request: Request) -> Reply:
        """Ask once."""
        try:
            async with asyncio.timeout(self._api.timeout):
                raw = await self._client.post(request.path, body=request.body, cast_to=self._http.Response)
        except (TimeoutError, self._openai.APITimeoutError) as error:
            if isinstance(error.__cause__, self._http.ConnectTimeout | self._http.PoolTimeout):
                return Retry(f"no connection within {CONNECTING * self._api.timeout:g} s")
            return Retry(f"no answer within {self._api.timeout:g} s", billed=True)
        except self._openai.APIStatusError as error:
            return self._refusal(error)
        except (self._openai.APIConnectionError, self._http.HTTPError) as error:
            cause = error.__cause__ or error
            # what breaks off while it is read was made, and probably billed
            broken = isinstance(cause, self._http.RemoteProtocolError | self._http.ReadError)
            return Retry(
                self._without_secret(f"no connection: {type(cause).__name__}: {cause}"), billed=broken
            )
        try:
            return self._answer(raw.text, request)
        except Exception as error:  # what one reply does to our reading must not cost the others under way
            return Retry(f"the answer cannot be read ({type(error).__name__})", billed=True, by_form=True)

    def _answer(self, text: str, request: Request) -> Reply:
        try:
            body = json.loads(text)
        except ValueError:
            return Retry(
                "the answer is not whole JSON" if text.strip() else "the answer has no content", billed=True
            )
        if isinstance(body, dict) and isinstance(
            body.get("error"), dict
        ):  # some gateways say 200 and mean it not
            code = body["error"].get("code")
            said = self._without_secret(str(body["error"].get("message", "")))
            return self._judged(code if isinstance(code, int) else 500, said, None, None)
        found = read_answer(body)
        if isinstance(found, str):
            read, written = usage_of(body)
            stated = None if read is None or written is None else price_of(self._api.price, read, written)
            return Retry(found, billed=True, cost=stated, by_form=not isinstance(found, BrokenOff))
        if not found.counted:
            found = estimated(found, request)
        return replace(found, cost=price_of(self._api.price, found.input_tokens, found.output_tokens))

    def _refusal(self, error: Any) -> Reply:
        """What a status beyond 2xx means."""
        inner = error.body if isinstance(error.body, dict) else {}
        said = self._without_secret(str(inner.get("message") or error.message))
        wait = retry_after(dict(error.response.headers), time.time())
        return self._judged(error.status_code, said, inner.get("code"), wait)

    def _judged(self, status: int, said: str, code: Any, wait: float | None) -> Reply:
        if status in FATAL:
            return Fatal(f"{FATAL[status]} (HTTP {status}: {said})")
        if code == "insufficient_quota":
            return Fatal(f"the account's quota is used up (HTTP {status}: {said})")
        if status in THROTTLED or (status == 503 and wait is not None):
            return Retry(f"HTTP {status}: {said}", wait, throttled=True)
        if status in PASSING or status >= 500:
            return Retry(f"HTTP {status}: {said}", wait)
        return Answer("refused", "", f"HTTP {status}: {said}")

    def _without_secret(self, text: str) -> str:
        text = sound(text)
        return (text.replace(self._secret, "***") if len(self._secret) > 4 else text)[:300]


def price_of(price: Price | None, read: float, written: float) -> float | None:
    """Dollars for so many tokens."""
    return None if price is None else (price.input * read + price.output * written) / 1e6


def retry_after(headers: dict[str, str], now: float) -> float | None:
    """Seconds that the headers ask to wait; None if they don't say.

    A date is read against the server's own clock where it tells its time; that is whole seconds, rounded down, so the
    wait is never too short.  Source: RFC 9110, section 10.2.3.
    """
    low = {name.lower(): value.strip() for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(low[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        then = parsedate_to_datetime(low["retry-after"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
    with suppress(KeyError, ValueError, TypeError):
        now = parsedate_to_datetime(low["date"]).timestamp()
    return max(0.0, then - now)
