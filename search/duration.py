"""A length of time as people write it: 90, 90s, 10m, 1h30m."""

import re
from typing import Any

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_TEXT = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in _UNITS))


def seconds(value: Any) -> float:
    """The duration in seconds; numbers are seconds already. Raises ValueError for what is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    match = _TEXT.fullmatch(value.replace(" ", "")) if isinstance(value, str) and value.strip() else None
    if match is None:
        raise ValueError(f"must be a duration such as 90s, 10m or 1h30m, or a number of seconds (got {value})")
    return sum(float(number) * size for number, size in zip(match.groups(), _UNITS.values(), strict=True) if number)
