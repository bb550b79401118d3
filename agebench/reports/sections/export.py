"""Exported files, as a reader meets them on the screen."""

from agebench.export.schema import ExportResult
from agebench.reports.formatting import DASH, format_ci, format_number, markdown_table, sanitize


def export_text(result: ExportResult) -> str:
    """Render the written files as a table, and explain its columns.

    Args:
        result: the result of an export.
    """
    files = result.files
    if not files:
        return "no file was written"
    tests = list(dict.fromkeys(name for file in files for name in file.accuracy))
    headers = ["file", "MB", "largest difference, years", *(f"MAE on {sanitize(name)}, change" for name in tests)]
    headers += ["one face, ms", "faces/s, one by one", "faces/s, 64 at once"]
    rows = [
        [
            file.file,
            f"{file.bytes / 1e6:.1f}",
            f"{file.checked.largest:.2g}",
            *(
                format_ci(file.accuracy[name].change if name in file.accuracy else None, digits=3, sign=True)
                for name in tests
            ),
            format_number(file.speed["batch_1"].median_ms, digits=1),
            format_number(file.speed["batch_1"].images_per_s, digits=0),
            format_number(file.speed["batch_64"].images_per_s, digits=0),
        ]
        for file in files
    ]
    machine, checked = result.hardware, files[0].checked
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    notes = (
        f"Largest difference: of the ages of {checked.faces} faces from the trained model's. Speed: estimation alone, "
        f"{threads} of {machine['cpu']}, median."
    )
    if tests:
        notes += f" MAE change: years, on the same images, with its paired 95 % interval; {DASH}: the model itself."
    return f"{markdown_table(headers, rows, align=['left', *['right'] * (len(headers) - 1)])}\n\n{notes}"
