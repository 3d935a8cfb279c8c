"""Asking a model behind an OpenAI-compatible endpoint: once, within limits, with everything written down.

    with Ledger(folder / "ledger.sqlite") as ledger:
        answers = ask(api, [chat(api, "Rewrite this: …", row="17", purpose="paraphrase")], ledger, watch)

`answers` are in the order of the requests, one each; what the ledger already has is not asked again.  Imports no torch.
"""

from .ledger import LEDGER, Ledger, ledger_of
from .messages import Answer, Request, chat, completion
from .service import ask, forecast, takes

__all__ = [
    "LEDGER",
    "Answer",
    "Ledger",
    "Request",
    "ask",
    "chat",
    "completion",
    "forecast",
    "ledger_of",
    "takes",
]
