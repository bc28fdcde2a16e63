"""Times as people say them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """`48 s`, `3 min 20 s`, `2 h 5 min`, `3 days`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    if whole < 2 * 86400:
        hours, minutes = whole // 3600, whole % 3600 // 60
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{whole / 86400:,.0f} days"


def roughly(seconds: float) -> str:
    """A time that is only guessed: `50 s`, `8 min`, `2 h 10 min`."""
    if seconds < 90:
        return duration(max(10 * round(seconds / 10), 10) if seconds >= 10 else seconds)
    step = 60 if seconds < 3600 else 600
    return duration(step * round(seconds / step))
