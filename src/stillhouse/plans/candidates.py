"""A candidate teacher: what it is, how it and the student understand each other, and what labelling everything with it takes."""

from pathlib import Path
from typing import Any

from ..asking import LEDGER, Ledger, Request, ledger_of, takes
from ..data.alignment import Tongue
from ..data.encode import read_examples
from ..data.formats import Row
from ..errors import RecipeError
from ..files import read_json
from ..models.load import load_tokenizer, same_tokenizer
from ..pipeline import DONE
from ..progress import Silent
from ..recipe import Api, CrossTokenizer, Recipe, parse_recipe, read_values
from ..steps.finish import teachers_terms
from ..steps.reading import read_rows
from ..teachers.said import asked_about

OWN = ("teacher", "objective", "label")
"""Sections of a candidate's file: itself, and what the student can compare with it, which depends on who it is."""
OF_ANY_MODEL = ("dtype", "finetune", "context", "zero_shot", "terms_accepted")
"""What the recipe says of its own teacher and means of any that is a model."""
VERDICTS = ("allowed", "unknown", "disallowed")


def with_teacher(recipe: Recipe, candidate: str) -> dict[str, Any]:
    """The recipe's plain values with another teacher.

    Args: candidate: a source as in `teacher.model` (a pinned one as SOURCE@sha256:HEX), or a YAML file of the sections OWN.
    Raises: RecipeError for a file that is not there or holds anything else, and for a source where the student teaches itself.
    """
    values = recipe.model_dump(mode="json", exclude_unset=True)
    for number, term in enumerate(recipe.objective if "objective" in values else []):
        values["objective"][number]["kind"] = term.kind
    if candidate.endswith((".yaml", ".yml")):
        return {**values, **_sections(Path(candidate))}
    if recipe.teacher.ema is not None:
        raise RecipeError(
            "teacher.ema: the student's own average teaches it, whoever is named in its place; remove it to compare teachers."
        )
    source, _, sha256 = candidate.partition("@sha256:")
    kept = {name: values["teacher"][name] for name in OF_ANY_MODEL if name in values["teacher"]}
    return {**values, "teacher": {**kept, "model": source, **({"sha256": sha256} if sha256 else {})}}


def _sections(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RecipeError(f"{path}: no such candidate; name a model, or a YAML file with a teacher: section.")
    found = read_values(path)
    if strange := sorted(set(found) - set(OWN)):
        raise RecipeError(f"{path}: a candidate has no {strange[0]}:, only {', '.join(OWN)}; remove it.")
    if "teacher" not in found:
        raise RecipeError(f"{path}: has no teacher: section; add it.")
    return found


# ── does it fit? ────────────────────────────────────────────────────────────────────────────────────────────────────


def compatibility(recipe: Recipe, place: Path) -> dict[str, Any]:
    """How teacher and student compare, as far as the run in `place` got.

    Returns: {"tokenizer", "template", "end_tokens": "same", "other", or None where neither matters or can be seen;
    "alignment": how soft targets cross over where tokenizers differ; "notes": what differs, a sentence each}.
    """
    unknown: dict[str, Any] = {
        "tokenizer": None,
        "template": None,
        "end_tokens": None,
        "alignment": None,
        "notes": [],
    }
    done = place / "prepare" / DONE
    if not recipe.teacher.is_local:
        return {**unknown, "notes": ["it is behind an API, which is asked and answers in text"]}
    if not done.exists():
        return unknown
    facts = read_json(done)["result"]
    teacher = facts["zero_shot"] or facts["teacher"]
    student = facts["student"] or facts["teacher"]  # made of its teacher, or of its teacher's family
    mine, theirs = (load_tokenizer(Path(one["folder"])) for one in (student, teacher))
    why = same_tokenizer(mine, theirs)
    found = {**unknown, "tokenizer": "other" if why else "same", "alignment": _alignment(recipe, why)}
    notes = [f"tokenizer: {why}"] if why else []
    if recipe.task != "causal_lm":  # no template is rendered
        return {**found, "notes": notes}
    templates = [one.chat_template for one in (mine, theirs)]
    found["template"] = "same" if templates[0] == templates[1] else "other"
    if None in templates and templates != [None, None]:
        notes.append(f"template: only the {'teacher' if templates[0] is None else 'student'} has one")
    ends = [_ends(Tongue(one)) for one in (mine, theirs)]
    found["end_tokens"] = "same" if ends[0] == ends[1] else "other"
    notes += [
        f"{what} ends with {theirs_end} at the teacher and {mine_end} at the student"
        for what, mine_end, theirs_end in zip(("a text", "an answer"), *ends, strict=True)
        if mine_end != theirs_end
    ]
    return {**found, "notes": notes}


def _alignment(recipe: Recipe, why: str | None) -> str | None:
    """What is compared where the two cut a text differently."""
    if why is None:
        return None
    if recipe.teacher.zero_shot is not None:
        return "names of labels"
    if recipe.task == "classification":
        return "classes"
    return next((term.method for term in recipe.terms if isinstance(term, CrossTokenizer)), None)


def _ends(tongue: Tongue) -> tuple[str | None, str | None]:
    """What ends a text and what ends an answer in a conversation, by name: ids differ between vocabularies."""
    turn = tongue.end_of_turn()
    named = None if turn is None else str(tongue.tokenizer.convert_ids_to_tokens(turn))
    return tongue.tokenizer.eos_token, named


def terms_of(recipe: Recipe, facts: dict[str, Any]) -> dict[str, Any]:
    """{"licence": or the provider, "terms": the strictest verdict, "terms_because": a sentence for each teacher}."""
    found = teachers_terms(recipe.teacher, facts)
    subject = facts["teacher"]["licence"] if recipe.teacher.is_local else found[0].subject
    verdict = max((one.verdict for one in found), key=VERDICTS.index)
    return {"licence": subject, "terms": verdict, "terms_because": [one.sentence() for one in found]}


# ── what does labelling take? ───────────────────────────────────────────────────────────────────────────────────────


def labelling(recipe: Recipe, place: Path) -> dict[str, Any]:
    """What it takes to label the whole training set once, from what the small run in `place` met.

    Args: recipe: with the candidate as its teacher and all of its rows.
    Returns: {"unit": tokens, rows or answers; "per_second"; "rows"; "seconds"; "cost", and "at_most" what it can be; "currency"},
    and of a panel some of whose members are on this machine and some behind an API "asking": what those take in dollars, beside
    what the machine costs.  A number that was not measured, or has no price, is None.
    """
    whole, _ = read_rows(recipe, Silent())
    rows = whole.train + whole.extra + whole.unlabelled
    facts = read_json(place / "prepare" / DONE)["result"]
    if not recipe.teacher.is_local:
        return _asking(recipe, place, facts, rows)
    asking = _members(recipe, place, facts, rows)
    if recipe.teacher.panel and len(recipe.teacher.apis) == len(recipe.teacher.panel):
        return {"unit": "answers", "per_second": None, "rows": len(rows), **asking, "currency": "dollars"}
    examples = read_examples(place / "prepare" / "train.parquet")
    share = _kept(whole.counts) / max(1, _kept(facts["counts"]))
    tokens = share * sum(len(one.input_ids) for one in examples)
    a_token = read_json(place / "plan" / "plan.json")["seconds_a_token"].get("teacher_label") or None
    seconds = None if a_token is None else tokens * a_token
    prices = recipe.report.prices
    cost = None if prices is None or seconds is None else seconds / 3600.0 * prices.machine_per_hour
    rate = {"unit": "tokens", "per_second": None if a_token is None else 1.0 / a_token}
    if recipe.task == "classification":
        rate = {"unit": "rows", "per_second": share * len(examples) / seconds if seconds else None}
    found = {
        **rate, "rows": len(rows), "seconds": seconds, "cost": cost, "at_most": cost, "currency": "that of report.prices",
    }  # fmt: skip
    if not any(api.base_url for api in recipe.teacher.apis.values()):
        return found
    return {**found, "seconds": None if seconds is None else seconds + asking["seconds"], "asking": asking}


def _members(recipe: Recipe, place: Path, facts: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """Of a panel's members behind an API, one after the other: {"seconds": by the forecast, "cost": as dear an answer as in the
    small run, "at_most": by the forecast}, in dollars; None where a member has no price."""
    paid = {field: api for field, api in recipe.teacher.apis.items() if api.base_url is not None}
    if not paid:  # past answers alone: nobody is asked
        return {"seconds": 0.0, "cost": 0.0, "at_most": 0.0}
    forecasts = [takes(api, _requests(recipe, api, field, facts, rows)) for field, api in paid.items()]
    dollars = [one["dollars"] for one in forecasts]
    with Ledger(ledger_of(place, LEDGER)) as ledger:
        means = [ledger.typical(api.base_url or "", api.model, facts["sets"])[1] for api in paid.values()]
    usual = [mean for mean in means if mean is not None]
    known = None not in dollars
    return {
        "seconds": sum(one["seconds"] for one in forecasts),
        "cost": len(rows) * sum(usual) if known and len(usual) == len(paid) else None,
        "at_most": sum(dollars) if known else None,
    }


def _requests(recipe: Recipe, api: Api, field: str, facts: dict[str, Any], rows: list[Row]) -> list[Request]:
    """What is asked about the rows by the teacher that the recipe names in `field`."""
    return asked_about([dict(row) for row in rows], recipe.task, facts["labels"], api, "train", field)


def _asking(recipe: Recipe, place: Path, facts: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """Of a teacher behind an API: as fast, and as dear an answer, as in the small run; at most what the forecast says."""
    api = recipe.teacher.api
    assert api is not None
    requests = _requests(recipe, api, "teacher.api", facts, rows)
    with Ledger(ledger_of(place, LEDGER)) as ledger:
        # each set's questions have its name as their purpose
        like = (api.base_url or "", api.model, facts["sets"])
        (_, usual, _), pace = ledger.typical(*like), ledger.pace(*like)
    forecast = takes(api, requests)
    if api.base_url is None:  # nobody is asked, so nothing is paid
        usual = forecast["dollars"] = 0.0
    return {
        "unit": "answers",
        "per_second": pace,
        "rows": len(rows),
        "seconds": len(rows) / pace if pace else forecast["seconds"],
        "cost": len(rows) * usual if usual is not None else None,
        "at_most": forecast["dollars"],
        "currency": "dollars",
    }


def _kept(counts: dict[str, dict[str, Any]]) -> int:
    return sum(counts[name]["kept"] for name in ("train", "extra", "unlabelled") if name in counts)


def whole_recipe(recipe: Recipe, candidate: str) -> Recipe:
    """The recipe with the candidate as its teacher.  Raises: RecipeError if they do not go together."""
    return parse_recipe(with_teacher(recipe, candidate), f"the recipe with {candidate}")
