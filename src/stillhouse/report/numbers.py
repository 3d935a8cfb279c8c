"""Numbers as people read them: 134.5M, 269 MB, 2 min 05 s, 1.02 [0.99, 1.05]."""

import math
from collections.abc import Callable, Mapping
from typing import Any

MISSING = "–"
"""What stands where a number was not measured."""


def known(value: Any) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _scaled(value: float, units: tuple[str, ...], gap: str) -> str:
    """`value` divided by 1000 until it fits, with three or four digits."""
    power = 0
    while power < len(units) - 1 and abs(value) >= 999.5:
        value, power = value / 1000, power + 1
    digits = 0 if power == 0 or abs(value) >= 199.5 else 1
    return f"{value:.{digits}f}{gap}{units[power]}".rstrip()


def count(value: float | None) -> str:
    """134515008 -> '134.5M'."""
    if value is None or not known(value):
        return MISSING
    return _scaled(value, ("", "K", "M", "B", "T"), "").replace(".0", "")


def size(value: float | None) -> str:
    """269e6 bytes -> '269 MB', in powers of 1000."""
    return (
        _scaled(value, ("B", "kB", "MB", "GB", "TB"), " ") if value is not None and known(value) else MISSING
    )


def duration(value: float | None) -> str:
    """3.14 seconds -> '3.1 s'; 0.183 -> '183 ms'; 0.0123 -> '12.3 ms'; 125 -> '2 min 05 s'; 3725 -> '1 h 02 min'."""
    if value is None or not known(value):
        return MISSING
    if 0 < value < 0.9995:  # two medians of 0.2 s may be a tenth apart
        return f"{1000 * value:.{0 if value >= 0.01995 else 1}f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    if value < 3599.5:
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours} h {minutes:02d} min"


def number(value: float | None, decimals: int | None = None) -> str:
    """`value` with three significant digits, or with `decimals`; a true minus sign, thousands separated."""
    if value is None or not known(value):
        return MISSING
    if decimals is None:
        decimals = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(decimals, 6)}f}"
    if value and not float(text.replace(",", "")):
        text = f"{value:.1e}"
    return text.replace("-", "−")


def decimals_for(measured: Mapping[str, Any]) -> int | None:
    """Decimals that show the interval's half-width with one digit, or with two where the first is a 1."""
    low, high = measured.get("low"), measured.get("high")
    if low is None or high is None or not (known(low) and known(high)) or high <= low:
        return None
    half = (high - low) / 2 * (1 + 1e-9)  # 0.0199… is 0.02
    power = math.floor(math.log10(half))
    return max(0, min((1 if half / 10**power < 2 else 0) - power, 6))


def with_interval(measured: Mapping[str, Any] | None, sign: float = 1.0) -> str:
    """{'value': 1.02, 'low': 0.99, 'high': 1.05} -> '1.02 [0.99, 1.05]'; without bounds, the value alone.

    `sign` -1 turns the number around, bounds included.
    """
    found = measured or {}
    low, high = ("low", "high") if sign > 0 else ("high", "low")
    places = decimals_for(found)
    turned = {"value": found.get("value"), "low": found.get(low), "high": found.get(high)}
    return within(turned, lambda value: number(sign * value, places))


def within(measured: Mapping[str, Any], show: Callable[[float], str]) -> str:
    """As `with_interval`, each number as `show` has it: '20 ms [18 ms, –]' where only one of the bounds is known."""
    if not known(measured.get("value")):
        return MISSING
    bounds = [
        show(bound) if bound is not None and known(bound) else MISSING
        for bound in (measured.get("low"), measured.get("high"))
    ]
    value = show(measured["value"])
    return value if bounds == [MISSING, MISSING] else f"{value} [{bounds[0]}, {bounds[1]}]"


def beside(found: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A plain number with its interval, which lies beside it under "intervals"; without one, the number alone."""
    return (found.get("intervals") or {}).get(key) or {"value": found.get(key)}


def percent(share: Mapping[str, Any]) -> str:
    """{'value': 0.91, 'low': 0.89, 'high': 0.93} -> '91 % (89–93 %)'; a decimal more where the interval is narrow."""
    value, low, high = (share.get(key) for key in ("value", "low", "high"))
    if value is None or not known(value):
        return MISSING
    if low is None or high is None or not (known(low) and known(high)):
        return MISSING if share.get("note") else f"{number(100 * value, 0)} %"
    places = 0 if high - low >= 0.02 else 1
    bounds = [number(100 * bound, places) for bound in (low, high)]
    joint = " to " if low < 0 else "–"
    return f"{number(100 * value, places)} % ({bounds[0]}{joint}{bounds[1]} %)"


def in_words(parts: list[str]) -> str:
    """['a', 'b', 'c'] -> 'a, b and c'."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else ""
