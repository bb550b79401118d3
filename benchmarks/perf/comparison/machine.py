"""The machine that is measured on."""

import os
import platform
from pathlib import Path


def machine() -> str:
    """Return the processor, the threads and Python's version."""
    path = Path("/proc/cpuinfo")
    info = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.machine())
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return f"{model}, OMP_NUM_THREADS = {threads}, Python {platform.python_version()}"
