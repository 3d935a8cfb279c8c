"""What a student costs in use, what making it cost, and after how many requests it has paid for itself."""

from typing import Any

MILLION = 1e6


def economics(
    teacher_speed: float | None,
    student_speed: float | None,
    making_seconds: float,
    *,
    machine_per_hour: float,
    teacher_per_million: float | None = None,
    units_per_request: float = 1.0,
    paid: float = 0.0,
) -> dict[str, Any]:
    """Prices in the user's currency; a unit is a generated token, or a classified row.

    Args:
        teacher_speed, student_speed: units a second on the machine that was measured; None if not measured.
        making_seconds: all that the run took on that machine.
        machine_per_hour: what it costs.
        teacher_per_million: what a million units of the teacher cost elsewhere, such as behind an API.
        units_per_request: tokens that a request generates, or rows that it holds.
        paid: what making took besides the machine: what APIs were paid.
    Returns: {"teacher_per_million", "student_per_million", "machine", "making": machine and APIs together,
        "break_even_requests", "note"}.
    """
    teacher = teacher_per_million
    if teacher is None and teacher_speed:
        teacher = machine_per_hour / 3600.0 / teacher_speed * MILLION
    student = machine_per_hour / 3600.0 / student_speed * MILLION if student_speed else None
    machine = making_seconds / 3600.0 * machine_per_hour
    making = machine + paid
    found: dict[str, Any] = {
        "teacher_per_million": teacher,
        "student_per_million": student,
        "machine": machine,
        "making": making,
        "units_per_request": units_per_request,
        "break_even_requests": None,
        "note": None,
    }
    if teacher is None:
        return found | {
            "note": "neither the teacher's speed nor its price is known, so nothing can be said of when it pays."
        }
    if student is None:
        return found | {"note": "no speed was measured, so nothing can be said of when it pays."}
    saved = (teacher - student) / MILLION * units_per_request
    if saved <= 0:
        return found | {
            "note": "the student is not cheaper to run than the teacher, so it never pays for itself."
        }
    return found | {"break_even_requests": making / saved}
