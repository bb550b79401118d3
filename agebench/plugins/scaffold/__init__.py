"""Skeletons of plugins: a small package with a card, its code and a test that passes."""

import re
import shutil
import tempfile
from pathlib import Path
from string import Template

from agebench.errors import UserError
from agebench.utils.io import write_text

KINDS = ("dataset", "model", "head", "detector")
_TEMPLATES = Path(__file__).parent / "templates"


def write_skeleton(kind: str, name: str, into: Path) -> list[Path]:
    """Write the skeleton of a plugin into the new folder `into`/agebench-`name`.

    Args:
        kind: dataset, model, head or detector.
        name: name of the plugin: lower-case letters, digits, dots, dashes, underscores.
        into: parent folder.

    Returns:
        The written files.

    Raises:
        UserError: the name is not valid, or the folder exists.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?", name):
        raise UserError(
            f"'{name}' cannot be a name: lower-case letters, digits, dots, dashes and underscores, 100 at most, a letter or digit "
            f"first and last, e.g. my-{kind}"
        )
    folder = into / f"agebench-{name}"
    if folder.exists():
        raise UserError(f"{folder} is there already; choose another name, or another folder with --into")
    class_name = "".join(part.capitalize() for part in re.split(r"\W|_", name))
    placeholders = {
        "name": name,
        "module": "agebench_" + re.sub(r"\W", "_", name),
        "class_name": f"My{class_name}" if class_name[0].isdecimal() else class_name,
    }
    files = []
    staging = Path(tempfile.mkdtemp(dir=_ensure_dir(into), prefix=f".{folder.name}.", suffix=".new"))
    try:
        for template in sorted([*(_TEMPLATES / "common").rglob("*.tmpl"), *(_TEMPLATES / kind).rglob("*.tmpl")]):
            parts = template.relative_to(_TEMPLATES).parts[1:]
            file = Template("/".join(parts).removesuffix(".tmpl")).substitute(placeholders)
            text = Template(template.read_text(encoding="utf-8")).substitute(placeholders | {"kind": kind})
            write_text(staging / folder.name / file, text)
            files.append(file)
        (staging / folder.name).rename(folder)  # atomic: a partial folder would block the next call
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [folder / file for file in files]


def _ensure_dir(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
