"""What was inherited and what changed rows cost, as small tables for the page: strings only."""

from collections.abc import Iterator
from typing import Any

from ..held_out import HALVES
from .inherited import group_gaps, inherited_errors
from .numbers import MISSING, beside, in_words, known, number, percent, with_interval
from .paid import paid
from .section import MOST, NAMES, WHO, Section, better, three
from .table import Results, dataset_names, metric_title


def sections(results: Results) -> list[Section]:
    """Those that have something to show."""
    made = (
        *inherited_errors(results), _apart(results), _words_apart(results), _classes(results), _confused(results), *group_gaps(results),
        _counterfactual(results), _robust(results), _mended(results), _baselines(results), *_memorised(results),
        _judged(results), _ended_early(results), _harness(results), _seeds(results), paid(results),
    )  # fmt: skip
    return [section for section in made if section is not None]


def _classes(results: Results) -> Section | None:
    """Precision, recall and F1 of each class for all who were measured."""
    table = (results.get("classes") or {}).get("table") or []
    rows = [
        [
            f"{row['label']}, {measure}" + (f" ({row['support']:,} rows)" if measure == "F1" else ""),
            *three({name: one[measure.lower()] for name, one in row["models"].items()}),
        ]
        for row in table
        for measure in ("F1", "precision", "recall")
    ]
    return Section("Class by class", [], ["class", *WHO], rows, "classes") if rows else None


def _confused(results: Results) -> Section | None:
    """Which class is taken for which, of the student beside the teacher's."""
    found = (results.get("classes") or {}).get("confusions") or {}
    theirs = {(one["label"], one["answered"]): one for one in found.get("teacher") or []}
    rows = [
        [
            f"{one['label']} → {one['answered']}",
            _of_class(one),
            _of_class(theirs[at]) if at in theirs else MISSING,
        ]
        for one in (found.get("student") or [])[:MOST]
        for at in [(one["label"], one["answered"])]
    ]
    columns = ["class → answer", "student", "teacher"]
    says = ["Rows, and which share of the class they are."]
    return Section("What is taken for what", says, columns, rows) if rows else None


def _of_class(one: dict[str, Any]) -> str:
    return f"{one['rows']:,}: {percent(beside(one, 'share'))}" if one["rows"] else "0"


def _counterfactual(results: Results) -> Section | None:
    found = results.get("counterfactual")
    if not found:
        return None
    row = [
        f"{found['title']} ({found['rows']:,} rows)",
        *three(found["models"]),
        with_interval(found["drift"]),
    ]
    says = [] if found["metric"] == "flips" else [MOVED_SAYS]
    if not found["rows"]:
        says = [
            "No row is measured both with its term and with the other one, so there is nothing to compare."
        ]
    return Section("Swapped terms", says, ["", *WHO, "student less teacher"], [row])


def _robust(results: Results) -> Section | None:
    found = results.get("robustness") or {}
    rows = [
        [
            f"{kind.removeprefix('eval_').replace('_', ' ')} ({each['rows']:,} rows)",
            *three(each["models"]),
            with_interval(each["extra"]),
        ]
        for kind, each in found.items()
    ]
    title = f"Changed rows: {metric_title(results, results['metric'])} less that on the clean ones"
    says = [HALVES_SAYS] if HALVES in dataset_names(results) else []
    says += [
        f"{kind.removeprefix('eval_').replace('_', ' ').capitalize()}: {each['left_out']:,} rows are left out, for they have "
        "no partner whose answer fits in whole."
        for kind, each in found.items()
        if each["left_out"]
    ]
    return Section(title, says, ["change", *WHO, "student less teacher"], rows) if rows else None


HALVES_SAYS = "The first half of each text was changed, and the second half, which was not, is what counts on both sides."
MOVED_SAYS = (
    "How much likelier or less likely the same answer (of a plain text: the text itself) becomes when one term stands in the "
    "place of the other, on average and without its sign."
)


def _apart(results: Results) -> Section | None:
    found = [each for each in results.get("disagreement") or [] if known(each["agreement"]["value"])]
    if len(found) < 2:
        return None
    order = sorted(found, key=lambda each: each["agreement"]["value"])[:MOST]
    rows = [
        [f"{each['by']}: {each['value']}", f"{each['rows']:,}", with_interval(each["agreement"])]
        for each in order
    ]
    return Section(
        "Where teacher and student part most", [], ["slice", "rows or positions", "agreement"], rows, "apart"
    )


def _words_apart(results: Results) -> Section | None:
    """The places at which a language model is furthest from its teacher."""
    rows = [
        [
            f"…{one['before']}",
            f"{one['teacher']!r} ({number(100 * one['teacher_share'], 0)} %)",
            f"{one['student']!r} ({number(100 * one['student_share'], 0)} %)",
        ]
        for one in (results.get("disagreement_examples") or [])[:MOST]
    ]
    says = ["How each would go on, and how sure it is."]
    return (
        Section("The words on which they part most", says, ["after", "teacher", "student"], rows)
        if rows
        else None
    )


def _mended(results: Results) -> Section | None:
    found = {name: each for name, each in (results.get("calibration") or {}).items() if each}
    rows = [
        [
            name.replace("hard_only", WHO[2]),
            *(
                with_interval(beside(each, key))
                for key in ("temperature", "nll", "nll_mended", "ece", "ece_mended")
            ),
        ]
        for name, each in found.items()
    ]
    columns = ["", "temperature", "likelihood, −log", "at that", "calibration error", "at that"]
    return Section("The temperature that would mend the confidence", [], columns, rows) if rows else None


def _seeds(results: Results) -> Section | None:
    found = results.get("seeds")
    if not found:
        return None
    rows = [
        [
            title,
            number(found[name]["mean"]),
            number(found[name]["deviation"]),
            f"{number(found[name]['low'])} to {number(found[name]['high'])}",
        ]
        for name, title in (("student", "student"), ("hard_only", WHO[2]), ("gain", "difference"))
        if name in found
    ]
    title = f"{metric_title(results, results['metric']).capitalize()} over {found['count']} seeds"
    return Section(title, list(_unsettled(found)), ["", "mean", "standard deviation", "range"], rows)


def _unsettled(found: dict[str, Any]) -> Iterator[str]:
    gain = found.get("gain")
    if gain and gain["low"] < 0 < gain["high"]:
        yield "Which of the two is better changes with the seed."


def _baselines(results: Results) -> Section | None:
    found, metric = results.get("baselines") or {}, results["metric"]
    if not found:
        return None
    rows = [
        [
            f"{name}: {one['about']}",
            dataset,
            with_interval(one["metrics"][dataset].get(metric)),
            with_interval(one["gains"][dataset].get(metric)),
            better(one["gains"][dataset].get(metric)),
        ]
        for name, one in found.items()
        for dataset in dataset_names(results)
    ]
    beaten = [name for name, one in found.items() if _isbetter(one["gains"]["eval"].get(metric))]
    missed = [name for name in found if name not in beaten]
    says = [f"The student is better than {in_words(beaten)} on eval."] if beaten else []
    if missed:
        says.append(f"It is not shown to be better than {in_words(missed)}.")
    title = f"Baselines: {metric_title(results, metric)}"
    return Section(title, says, ["", "on", "baseline", "student − baseline", "the student is"], rows)


def _memorised(results: Results) -> Iterator[Section]:
    """Planted secrets, and text that is continued word for word."""
    found = results.get("memorisation") or {}
    if secrets := found.get("canaries"):
        row = [
            f"mean exposure, bits ({secrets['count']} secrets, {number(secrets['read'])} times read; "
            f"{number(secrets['chance'])} by chance, at most {number(secrets['most'])})",
            *(
                f"{with_interval(beside(one, 'mean'))} (p = {number(one['p'], 3)})" if one else MISSING
                for one in (secrets["models"].get(name) for name in NAMES)
            ),
        ]
        yield Section("Planted secrets", [secrets["says"]], ["", *WHO], [row])
    if copied := found.get("verbatim"):
        rows = [
            [
                f"{copied['rows'][kind]:,} {title}",
                *three({name: (copied["models"].get(name) or {}).get(kind) for name in NAMES}),
            ]
            for kind, title in (("train", "training rows"), ("held_out", "held-out rows"))
        ]
        title = f"Rows whose next {copied['tokens']} tokens are reproduced"
        yield Section(title, [copied["says"]], ["share of", *WHO], rows)


def _judged(results: Results) -> Section | None:
    found = results.get("judged") or {}
    rows = [
        [
            f"against {'the teacher' if name == 'teacher' else WHO[2]} ({one['judged']:,} prompts)",
            f"{one['wins']:,} / {one['ties']:,} / {one['losses']:,}",
            with_interval(one["win_rate"]),
            better(one["preferred"]),
            with_interval(one["first_place"]),
            with_interval(one["same_twice"]),
        ]
        for name, one in (found.get("against") or {}).items()
    ]
    if not rows:
        return None
    lost = sum(one["unparsable"] for one in found["against"].values())
    asked = sum(one["replies"] for one in found["against"].values())
    says = [
        f"{found['judge']} read both answers in both orders; ties are half a win.  {lost:,} of {asked:,} replies had no verdict, and "
        "their prompts are left out."
    ]
    columns = [
        "student",
        "won / tied / lost",
        "win rate",
        "the student is",
        "first place preferred",
        "same verdict twice",
    ]
    return Section("Judged in pairs", says, columns, rows)


def _ended_early(results: Results) -> Section | None:
    found = results.get("early_stopping") or {}
    rows = [
        [
            {"student": WHO[1]}.get(name, WHO[2]),
            f"{one['best_step']:,}",
            f"{one['ended_at']:,} of {one['steps']:,}",
            number(one["best"]),
        ]
        for name, one in found.items()
    ]
    if not rows:
        return None
    one = found.get("student") or next(iter(found.values()))
    says = [f"Chosen on {one['rows']:,} rows of {one['of']}, which nothing else is reported on."]
    columns = ["", "best at step", "ended at", f"{metric_title(results, one['metric'])} there"]
    return Section("Early stopping", says, columns, rows)


def _isbetter(gap: dict[str, Any] | None) -> bool:
    return gap is not None and gap["better"] is True


def _harness(results: Results) -> Section | None:
    found = results.get("harness")
    if not found:
        return None
    rows = [
        [
            f"{one['task']}: {one['metric']} {'↑' if one['higher_is_better'] else '↓'} ({one['documents']:,} documents)",
            *three(one["models"]),
            with_interval(one["gain"]),
            better(one["gain"]),
        ]
        for one in found
    ]
    says = ["Asked and scored by the lm-evaluation-harness; the same documents for each model."]
    columns = ["task", *WHO, "student − hard targets only", "the student is"]
    return Section("Tasks of the lm-evaluation-harness", says, columns, rows)
