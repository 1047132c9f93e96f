"""Numbers of bytes as people write them."""

import re
from typing import Any

_UNITS = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


def byte_count(value: Any) -> Any:
    """``200MB`` as 209715200, in powers of 1,024; numbers, and None, as they are."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)", value.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(f"must be a number of bytes, such as 200MB or 20GB (got {value})")
    return int(float(found[1]) * _UNITS[found[2].upper()])
