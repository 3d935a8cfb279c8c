"""Addresses at which models of one name are different ones, as recipes told them apart so far."""

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from ..files import hash_json
from ..recipe import Api
from .messages import Request

Apart = Mapping[str, Collection[str]]
"""Address at which a model stood beside another of its name -> where such others are.  Itself is among them where an older ledger
says that it did, and not beside whom."""


def tell_apart(base: sqlite3.Connection, requests: Collection[Request]) -> dict[str, Apart]:
    """Write down whom these requests tell apart; those that were once stay so.  Returns: model -> where it is told apart."""
    asked = {(*one.asked, one.apart) for one in requests}
    pairs = {
        (model, *pair)
        for model, place, others in asked
        for other in others
        for pair in ((place, other), (other, place))
    }
    known = set(base.execute("SELECT model, place, other FROM apart"))
    if pairs - known:
        with base:
            base.execute("BEGIN")
            base.executemany("INSERT OR IGNORE INTO apart VALUES (?, ?, ?)", sorted(pairs - known))
    models = {model for model, _, _ in asked}
    apart: dict[str, Apart] = {model: told_apart(base, model) for model in models}
    if place_named(base, requests, apart):
        apart = {model: told_apart(base, model) for model in models}
    return apart


def told_apart(base: sqlite3.Connection, model: str) -> dict[str, set[str]]:
    """Where a model of that name is told apart from whom."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for place, other in base.execute("SELECT place, other FROM apart WHERE model = ?", (model,)):
        found[place].add(other)
    return dict(found)


def apart_of(base: sqlite3.Connection, api: Api) -> Apart:
    """The same for a model that a recipe names, which may not have been asked yet."""
    found, place = told_apart(base, str(api.model)), api.base_url or ""
    for other in api.namesakes:
        found.setdefault(place, set()).add(other)
        found.setdefault(other, set()).add(place)
    return found


def place_named(base: sqlite3.Connection, requests: Iterable[Request], apart: Mapping[str, Apart]) -> bool:
    """Give what came from an older ledger by a name its address, where the recipe tells it.  Returns: whether it did.

    Who has such a name stood beside a namesake.  Beside whom is not known, so it is told apart from all others that did.
    """
    unplaced = dict(base.execute("SELECT name, key FROM unplaced"))
    if not unplaced:
        return False
    questions = set(unplaced.values())
    known = {
        name: (place, one)
        for one in requests
        if one.question in questions
        for name, place in _names(one, apart[one.asked[0]].get(one.place, ()))
        if name in unplaced
    }
    with base:
        base.execute("BEGIN")
        for name, (place, one) in known.items():
            _place(base, name, one.question, place)
        for model, place in sorted({(one.asked[0], place) for place, one in known.values() if place}):
            base.execute("INSERT OR IGNORE INTO apart VALUES (?1, ?2, ?2)", (model, place))
            base.execute(
                "INSERT OR IGNORE INTO apart SELECT ?1, ?2, place FROM apart WHERE model = ?1 "
                "UNION SELECT ?1, place, ?2 FROM apart WHERE model = ?1",
                (model, place),
            )
    return bool(known)


def _place(base: sqlite3.Connection, name: str, key: str, place: str) -> None:
    """What lies under a name, to its place; an answer takes the room of a refusal."""
    base.execute(
        "DELETE FROM answers WHERE key = ?1 AND place = ?2 AND status = 'refused' AND EXISTS "
        "(SELECT 1 FROM answers b WHERE b.key = ?1 AND b.place = ?3 AND b.status != 'refused')",
        (key, place, name),
    )
    for table in ("answers", "attempts", "wanted"):
        base.execute(
            f"UPDATE OR IGNORE {table} SET place = ? WHERE key = ? AND place = ?", (place, key, name)
        )
    base.execute("UPDATE answers SET taken = ? WHERE key = ? AND taken = ?", (place, key, name))
    base.execute("DELETE FROM unplaced WHERE name = ?", (name,))


def _names(one: Request, others: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(what an older ledger may call a question, whose it is then)."""
    for place in (one.place, *others):
        yield one.named(place), place
    if (
        one.plain != one.body
    ):  # numbers as keys were sorted as numbers there, also in a name without an address
        with suppress(TypeError):  # and beside words not at all
            yield hash_json([one.path, one.body]), ""
            for place in (one.place, *others):
                yield hash_json([one.path, one.body, place]), place
