"""Recipes that ask models of one name, and what their ledger is told."""

from typing import Any

from stillhouse.asking import Answer, Ledger, Request, chat
from stillhouse.data.load import Raw
from stillhouse.recipe import Api
from stillhouse.recipe.api import tell_apart

A, B, C, D = (f"http://{name}.example/v1" for name in "abcd")
QUESTIONS = ("one", "two", "three")
STORED = Api(model="w", answers="past.jsonl")


def recipe(*places: str, **body: Any) -> list[Api]:
    """The APIs of a recipe that asks a model "w" at each of these addresses."""
    apis = [Api(base_url=place, model="w", extra_body=body) for place in places]
    tell_apart(apis)
    return apis


def question(api: Api, text: str = "one") -> Request:
    return chat(api, text, row=text, purpose="train")


def buy(ledger: Ledger, request: Request, text: str, dollars: float) -> None:
    ledger.plan([request])
    ledger.end(ledger.begin(request, 9.0), 0.1, "answered", dollars)
    ledger.keep(request, Answer("answered", text, cost=dollars), request.place)


def said(ledger: Ledger, request: Request) -> str | None:
    found = ledger.answers([request]).get(request.key)
    return found and found.text


def result(name: str, text: str) -> Raw:
    """A line of a batch's output."""
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    return Raw("results.jsonl:1", {"custom_id": name, "response": {"status_code": 200, "body": body}})
