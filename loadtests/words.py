"""Figures as people read them: three digits, a unit, and a dash where there is nothing."""

from __future__ import annotations

import math

NOTHING = "–"


def digits(value: float) -> str:
    """Three significant digits, without an exponent and without zeros at the end of a fraction."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(places, 6)}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def seconds(value: float | None) -> str:
    """A time, in the unit that gives it few digits."""
    if value is None or math.isnan(value):
        return NOTHING
    size = abs(value)
    if 0 < size < 1:
        return f"{digits(value * 1e3)} ms"
    if size < 120:
        return f"{digits(value)} s"
    return f"{digits(value / 60)} min" if size < 7200 else f"{digits(value / 3600)} h"


def share(value: float | None) -> str:
    """A share as a percentage; nothing is rounded up to all."""
    if value is None or math.isnan(value):
        return NOTHING
    places = 1 if value < 0.995 else 2
    text = f"{math.floor(value * 100 * 10**places + 1e-6) / 10**places:.{places}f}"
    return text.rstrip("0").rstrip(".") + "%"


def count(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{round(value):,}"


def ratio(value: float | None) -> str:
    """One value over another."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"×{value:.2f}" if math.isfinite(value) else "×∞"


def percent_more(value: float) -> str:
    """A ratio as what it adds: 1.2 is +20%."""
    if math.isnan(value):
        return NOTHING
    if not math.isfinite(value) or value >= 10:
        return ratio(value)
    return f"{(value - 1) * 100:+.1f}%".replace("-", "−")


def named(number: float, one: str, several: str = "") -> str:
    """``1 request``, ``2 requests``."""
    return f"{count(number)} {one if round(number) == 1 else several or one + 's'}"
