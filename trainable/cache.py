"""The user's cache: where downloads and activations are kept between runs."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """$TRANSFER_SEARCH_CACHE, or the place that the system has for such things."""
    return Path(os.environ.get("TRANSFER_SEARCH_CACHE") or platformdirs.user_cache_dir("transfer-search"))
