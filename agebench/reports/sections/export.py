"""Exported files, as a reader meets them on the screen."""

from collections.abc import Mapping
from typing import Any

from agebench.reports.formatting import DASH, format_ci, format_number, markdown_table, sanitize


def export_text(found: Mapping[str, Any]) -> str:
    """A table of the files, and what its columns mean."""
    files = found["files"]
    if not files:
        return "no file was written"
    tests = list(dict.fromkeys(name for file in files for name in file.get("accuracy", {})))
    headers = ["file", "MB", "largest difference, years", *(f"MAE on {sanitize(name)}, change" for name in tests)]
    headers += ["one face, ms", "faces/s, one by one", "faces/s, 64 at once"]
    rows = [
        [
            file["file"],
            f"{file['bytes'] / 1e6:.1f}",
            f"{max(value for key, value in file['checked'].items() if key.startswith('max_')):.2g}",
            *(format_ci(file.get("accuracy", {}).get(name, {}).get("change"), digits=3, sign=True) for name in tests),
            format_number(file["speed"]["batch_1"]["median_ms"], digits=1),
            format_number(file["speed"]["batch_1"]["images_per_s"], digits=0),
            format_number(file["speed"]["batch_64"]["images_per_s"], digits=0),
        ]
        for file in files
    ]
    machine, checked = found["hardware"], files[0]["checked"]
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    notes = (
        f"Largest difference: of the ages of {checked['faces']} faces from the trained model's. Speed: estimation alone, "
        f"{threads} of {machine['cpu']}, median."
    )
    if tests:
        notes += f" MAE change: years, on the same images, with its paired 95 % interval; {DASH}: the model itself."
    return f"{markdown_table(headers, rows, align=['left', *['right'] * (len(headers) - 1)])}\n\n{notes}"
