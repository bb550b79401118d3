"""Where things live on this machine."""

import os
from pathlib import Path

import platformdirs


def data_home() -> Path:
    """The folder of datasets: `AGEBENCH_DATA`, or the platform's data folder."""
    return Path(os.environ.get("AGEBENCH_DATA") or platformdirs.user_data_path("agebench")).expanduser()


def cache_home() -> Path:
    """The folder of what can be made again (decoded faces, audits): `AGEBENCH_CACHE`, or the platform's cache folder."""
    return Path(os.environ.get("AGEBENCH_CACHE") or platformdirs.user_cache_path("agebench")).expanduser()


def shipped(folder: str) -> Path:
    """A top-level folder that ships with agebench (`registry`, `benchmarks/suites`).

    In a source checkout it stands beside the package, in an installed wheel inside it.
    """
    package = Path(__file__).parent
    installed = package / "_shipped" / folder
    return installed if installed.is_dir() else package.parent / folder
