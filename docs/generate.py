"""Hooks of the manual's site: reference pages from parsers and models, notebooks from tutorials, links out of docs/.

Nothing that this module writes is committed. `mkdocs.yml` names it under `hooks`.
"""

import argparse
import functools
import json
import os
import re
import shutil
import types
import typing
from collections.abc import Iterator
from enum import StrEnum
from html import escape
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

# Keys of cards and settings that several tables share and whose name alone explains them.
COMMON = {
    "n": "images",
    "mae": "mean absolute error, years",
    "fpr": "false positive rate: share of under-age images that pass",
    "fnr": "false negative rate: share of of-age images that are refused",
}
EXIT_CODES = {
    "0": "done; of `--require`: all requirements are shown",
    "1": "failed: the work could not be done, or a check found a violation",
    "2": "the command, a card or an input is wrong; the message names the value and the way out",
    "3": "of `--require`: none is refuted, and at least one is not shown",
    "4": "of `--require`: at least one is refuted",
    "75": "another process works on the same run; the same command may succeed later",
    "130": "interrupted by Ctrl-C; `--resume` continues a run",
}


def cell(text: object) -> str:
    """Return a text for a cell of a Markdown table."""
    escaped = str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;").strip()
    # Outside of code, an asterisk would begin an emphasis.
    return "`".join(
        part.replace("*", "\\*") if index % 2 == 0 else part for index, part in enumerate(escaped.split("`"))
    )


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *(tuple(map(cell, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


# --- settings, cards and results: pydantic models ---------------------------------------------------------------------


def nested_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models within a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from nested_models(argument)


def type_text(annotation: Any) -> str:
    """Return a type annotation as readers of TOML and JSON know it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(argument) for argument in arguments if argument is not type(None))
    if origin in (list, tuple, set):
        inner = [argument for argument in arguments if argument is not Ellipsis]
        return f"list of {type_text(inner[0])}" if inner else "list"
    if origin in (dict, typing.get_origin(typing.Mapping[str, str])):
        return f"table of {type_text(arguments[1])}"
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return f"[{class_title(annotation)}](#{anchor(annotation)})"
        if issubclass(annotation, StrEnum):
            return f"[{annotation.__name__}](codes.md)"
    names = {str: "string", int: "whole number", float: "number", bool: "true or false", dict: "table"}
    return names.get(annotation, "any value" if annotation is Any else str(getattr(annotation, "__name__", annotation)))


def class_title(model: type[BaseModel]) -> str:
    """Return a model's name without its type argument."""
    return model.__name__.partition("[")[0]


def anchor(model: type[BaseModel]) -> str:
    """Return the anchor of a model's section."""
    return class_title(model).lower()


def limits(field: FieldInfo) -> str:
    """Return a field's range, as `> 0, <= 4`."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in signs.items()
        if hasattr(rule, name)
    ]
    return ", ".join(found)


def default_text(field: FieldInfo) -> str:
    """Return a field's default as TOML, `required` where it has none."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None or isinstance(value, BaseModel):
        return ""
    return f"`{json.dumps(value, default=list)}`"


def description(name: str, field: FieldInfo) -> str:
    """Return a field's description; that of its model, or of a common name, where it has none."""
    if field.description:
        return field.description
    model = next(nested_models(field.annotation), None)
    if model is not None and model.__doc__:
        text = model.__doc__.split("\n\n")[0].strip().rstrip(".")
        return text if text[1:2].isupper() else text[0].lower() + text[1:]
    return COMMON.get(name, "")


def model_section(model: type[BaseModel], path: str) -> str:
    """Return a section with one row per key of a model; `path` is the place of the table, empty for the whole file."""
    rows = []
    for name, field in model.model_fields.items():
        kind = type_text(field.annotation)
        rows.append((f"`{name}`", f"{kind} {limits(field)}".strip(), default_text(field), description(name, field)))
    text = (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    heading = f"## {path or class_title(model)} {{ #{anchor(model)} }}"
    place = f"`{class_title(model)}`. " if path else ""
    return f"{heading}\n\n{place}{text}\n\n{table(('key', 'value', 'default', 'meaning'), rows)}"


def walk(model: type[BaseModel], seen: dict[type[BaseModel], str], path: str = "") -> None:
    """Collect a model and all models below it, each once, with the path of its first use."""
    if model not in seen:
        seen[model] = path
        for name, field in model.model_fields.items():
            # Of a table of tables the names are free.
            repeated = ".NAME" * type_text(field.annotation).count("table of ")
            for inner in nested_models(field.annotation):
                walk(inner, seen, f"{path}.{name}{repeated}".lstrip("."))


def models_page(
    title: str, introduction: str, roots: list[type[BaseModel]], *elsewhere: tuple[str, type[BaseModel]]
) -> str:
    """Return a page with a section per model, the roots and all that they contain.

    Args:
        title: heading of the page.
        introduction: text below the heading.
        roots: models of whole files.
        elsewhere: (page, model): the model and all below it have sections on that page, and are linked.
    """
    seen: dict[type[BaseModel], str] = {}
    for root in roots:
        walk(root, seen)
    linked: dict[str, str] = {}
    for page, model in elsewhere:
        below: dict[type[BaseModel], str] = {}
        walk(model, below)
        linked |= {anchor(entry): page for entry in below}
    sections = [model_section(model, path) for model, path in seen.items() if anchor(model) not in linked]
    text = "\n\n".join([f"# {title}", introduction, *sections])
    return re.sub(r"\(#(\w+)\)", lambda match: f"({linked.get(match[1], '')}#{match[1]})", text)


def settings_page() -> str:
    """Return the page of all settings of runs and tests."""
    from agebench.config.cards.external import ExternalCard
    from agebench.config.evaluate import ExternalConfig, PublishedConfig
    from agebench.config.run import RunConfig

    introduction = (
        "All keys of a run's `config.toml`. On the command line `--set TABLE.KEY=VALUE` sets one, such as `--set train.lr=0.0005`; "
        "`--config FILE` reads many. Later sources win: the defaults, the model's card, `--config`, options, `--set`. "
        "Unknown keys are errors. `agebench run … --dry-run` prints the result without running it. "
        "`agebench test` has the settings of `PublishedConfig` for published weights, and of `ExternalConfig` for external models."
    )
    roots = [RunConfig, PublishedConfig, ExternalConfig]
    return models_page("Settings of runs and tests", introduction, roots, ("cards.md", ExternalCard))


def cards_page() -> str:
    """Return the page of the keys of all cards."""
    from agebench.config.cards.dataset import DatasetCard
    from agebench.config.cards.external import ExternalCard
    from agebench.config.cards.model import ModelCard, Recipe, Training
    from agebench.config.cards.suite import SuiteCard

    introduction = (
        "A card is a TOML file in `datasets/`, `models/` or `suites/` of a registry folder (`--registry DIR`). "
        '`extends = "NAME"` takes all keys of another card of the same kind and replaces some. Reading a card runs no code. '
        "The options of a dataset's reader are described in [Write a dataset card](../how-to/dataset-card.md)."
    )
    roots = [DatasetCard, ModelCard, ExternalCard, SuiteCard]
    return models_page("Keys of cards", introduction, roots, ("settings.md", Recipe), ("settings.md", Training))


def metrics_page() -> str:
    """Return the page of the schema of metrics.json."""
    from agebench.metrics.schema import SCHEMA, MetricsFile

    introduction = (
        f"`metrics.json` of a run or test folder, and `--json` of `agebench score`. "
        f"The schema is version {SCHEMA}; version 1 is read too. "
        "Shares lie between 0 and 1, ages and errors are in years. A key without a value is left out. "
        "[Statistics](../explanation/statistics.md) describes the methods."
    )
    return models_page("Schema of metrics.json", introduction, [MetricsFile])


def records_page() -> str:
    """Return the page of the schema of result records."""
    from agebench.leaderboard.schema import Record
    from agebench.metrics.schema import MetricsFile

    introduction = (
        "One JSON file per run in `reports/results/`. `sha256` seals all other keys. `agebench results add` writes records, "
        "`agebench results check` verifies them: [Records and the leaderboard](../how-to/results.md). "
        "Results have the models of [metrics.json](metrics-json.md)."
    )
    return models_page("Schema of records", introduction, [Record], ("metrics-json.md", MetricsFile))


# --- command line -----------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Return the page of all commands and options."""
    from agebench.cli import COMMANDS, build_parser

    parser = build_parser(COMMANDS)
    sections = [
        "# Command line",
        "`agebench COMMAND --help` prints the same. Abbreviations of options are accepted. Options with ✱ are required. "
        "[Exit codes](codes.md#exit-codes) are the same for all commands.",
    ]
    for name, subparser in subparsers(parser):
        if name in COMMANDS:
            sections += list(command_sections(name, subparser, 2))
    return "\n\n".join(sections)


def subparsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the names and parsers of a parser's commands, without aliases."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            names = [choice.dest for choice in action._choices_actions]
            yield from ((name, action.choices[name]) for name in names)


def command_sections(name: str, parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """Yield the section of a command, and those of its actions."""
    anchor_name = name.replace(" ", "-")
    yield f"{'#' * level} agebench {name} {{ #{anchor_name} }}\n\n{parser.description or ''}"
    actions = list(subparsers(parser))
    actions_shown = [action for group in parser._action_groups for action in group._group_actions]
    rows: list[tuple[object, ...]] = [
        (invocation(action), option_help(action, parser))
        for action in actions_shown
        if action.help != argparse.SUPPRESS and not isinstance(action, NO_ROW)
    ]
    if rows:
        yield table(("argument", "meaning"), rows)
    epilog = re.match(r"examples:\n(.*?)\n\nmanual: (\S+)", parser.epilog or "", re.DOTALL)
    if epilog and not actions:
        examples = "\n".join(line.strip() for line in epilog[1].splitlines())
        page = epilog[2].removeprefix("docs/")
        yield f"```sh\n{examples}\n```\n\nSee [{page_title(DOCS / page)}](../{page})."
    for action_name, subparser in actions:
        yield from command_sections(f"{name} {action_name}", subparser, level + 1)


NO_ROW = (argparse._SubParsersAction, argparse._HelpAction)


def option_help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """Return an option's help, with its default unless the help states it."""
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    hidden = action.nargs == 0 or action.default in (None, [], (), "", argparse.SUPPRESS)
    return text if hidden or "default" in text else f"{text} (default: `{action.default}`)"


def invocation(action: argparse.Action) -> str:
    """Return an option with its value, as code."""
    metavar = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    value = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
    if action.choices is not None and action.metavar is None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return f"`{value}`"
    names = ", ".join(action.option_strings)
    return f"`{names}`" if action.nargs == 0 else f"`{names} {value}`" + " ✱" * action.required


# --- codes ------------------------------------------------------------------------------------------------------------


def codes_page() -> str:
    """Return the page of exit codes, coded reasons and states."""
    from agebench.leaderboard.systems import UNRANKED, Caveat
    from agebench.types import RejectReason, RunState

    sections = [
        "# Codes",
        "Nothing in agebench decides by the wording of a message. These codes are stable; messages can change.",
        "## Exit codes { #exit-codes }",
        table(("code", "meaning"), [(f"`{code}`", text) for code, text in EXIT_CODES.items()]),
        "## Reasons for rejecting an image { #reject-reasons }",
        "`samples/quarantined.parquet` of a run lists every rejected image with its code; `agebench data verify` counts them. "
        "*Failure to process*: the image was there, and no face could be prepared or no age was predicted.",
    ]
    for title, codes in REASONS.items():
        rows = [(f"`{RejectReason(code)}`", meaning) for code, meaning in codes.items()]
        sections += [f"### {title}", table(("code", "reason"), rows)]
    sections += [
        "## States of a suite's runs { #run-states }",
        table(("state", "meaning"), [(f"`{state}`", STATES[state.value]) for state in RunState]),
        "## Caveats of the leaderboard { #caveats }",
        "With one of the first group, a system is not ranked.",
        table(
            ("caveat", "ranked"),
            [
                (str(caveat), "no" if caveat in UNRANKED else "yes")
                for caveat in sorted(Caveat, key=lambda caveat: caveat not in UNRANKED)
            ],
        ),
    ]
    return "\n\n".join(sections)


STATES = {
    "pending": "nothing was trained yet",
    "incomplete": "stopped after an epoch, or another process works on it",
    "stale": "finished, but its data or weights have changed since",
    "failed": "the last attempt failed; the log says why",
    "done": "finished, with all its tests",
}


REASONS = {
    "Failures to process: the image": {
        "unreadable": "the file cannot be read",
        "not-an-image": "the file is in no format that is read here",
        "damaged-image": "the file is truncated or its data are damaged",
        "image-too-large": "the file or its pixels exceed the limits",
        "pixel-format": "its white is undefined: floating-point pixels, or 16-bit color with 12 bits or fewer in use",
        "unreachable-url": "the address could not be downloaded",
    },
    "Failures to process: the face": {
        "no-face": "the detector found no face",
        "no-estimate": "an external model returned no age for the photograph",
        "no-landmarks": "the image has no annotated points",
        "bad-landmarks": "the annotated points cannot be used",
        "bad-body-box": "the annotated box of the body cannot be used",
        "bad-face-box": "the annotated box of the face cannot be used",
    },
    "The row or its label": {
        "no-age": "the row has no age",
        "bad-age": "the age is not a number or a range; the detail contains the value",
        "age-out-of-range": "the age is outside 0 to 120",
        "conflicting-labels": "rows of one image have different labels",
        "duplicate-row": "the row repeats an image",
        "duplicate-id": "another row has the same sample_id",
        "missing-file": "no file is at the path",
        "outside-folder": "the path leads out of the dataset's folder",
        "not-utf8-name": "the file's name is not UTF-8",
        "name-pattern": "the file's name does not match the card's pattern",
        "no-image": "the row has no path and no image",
        "no-face-box": "the row has no usable box",
        "bad-label-file": "the image's own file of labels cannot be read",
        "body-image": "the image of the body cannot be used",
    },
    "Left out on purpose": {
        "not-listed": "no list of the official split names the image",
        "no-split": "the split column is empty for this image",
        "outside-protocol": "the protocol does not use this image",
        "excluded": "a list of `--exclude` names the image",
        "in-training-set": "the test image, or its subject, is also in the training set",
        "other": "a plugin gave no code; the detail says more",
    },
}


# --- notebooks, links and pictures ------------------------------------------------------------------------------------


def to_notebook(text: str) -> dict[str, Any]:
    """Return a tutorial as a notebook: `sh` and `python` blocks become code cells, all other text Markdown cells.

    Blocks of other languages, such as output, stay in the text. Commands run through the shell of the notebook.

    Args:
        text: the Markdown of the tutorial.
    """
    cells: list[dict[str, Any]] = []
    for number, part in enumerate(re.split(r"^```(sh|python)\n(.*?)^```\n", text, flags=re.DOTALL | re.MULTILINE)):
        kind = ("text", "language", "code")[number % 3]
        if kind == "language":
            language = part
        elif kind == "text" and part.strip():
            cells.append({"cell_type": "markdown", "metadata": {}, "source": part.strip()})
        elif kind == "code":
            source = part.rstrip() if language == "python" else "%%bash\n" + part.rstrip()
            cells.append(
                {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
            )
    for index, entry in enumerate(cells):
        entry["id"] = f"cell-{index}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


@functools.cache
def page_title(path: Path) -> str:
    """Return the first heading of a page."""
    match = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) if path.is_file() else None
    return match[1] if match else path.stem


def adr_index() -> str:
    """Return the list of all decision records."""
    rows = [f"- [{page_title(path)}]({path.name})" for path in sorted((DOCS / "adr").glob("[0-9]*.md"))]
    text = "Decisions that are hard to see from the code. A superseded record stays and names its successor."
    return "\n".join(["# Decision records", "", text, "", *rows, ""])


def replace_links(markdown: str, folder: Path) -> str:
    """Replace links out of docs/: pages that the site contains keep a link, other files become plain text.

    Args:
        markdown: the page.
        folder: the folder of the page.
    """
    included = {(ROOT / name).resolve(): DOCS / page for page, name in PROJECT_PAGES.items()}

    def replace(match: re.Match[str]) -> str:
        text, target, fragment = match[1], match[2], match[3] or ""
        path = (folder / target).resolve()
        if "://" in target or path.is_relative_to(DOCS):
            return match[0]
        if path in included:
            return f"[{text}]({os.path.relpath(included[path], folder)}{fragment})"
        return text

    return re.sub(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)", replace, markdown)


# Page of the site -> file of the repository.
PROJECT_PAGES = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
    "code-of-conduct.md": "CODE_OF_CONDUCT.md",
}


def layer_diagram(markdown: str) -> str:
    """Replace the Mermaid diagram of the layers by an inline SVG, which needs no script.

    Args:
        markdown: the page of the architecture.
    """
    match = re.search(r"```mermaid\n(.*?)```", markdown, re.DOTALL)
    if match is None:
        return markdown
    layers = [block.split() for block in re.findall(r"subgraph layer\d+\[ \]\n(.*?)\n  end", match[1], re.DOTALL)]
    edges = re.findall(r"(\w+) --> (\w+)", match[1])
    width, height, step = 640, 26, 44
    center = {
        name: (width * (place + 1) / (len(names) + 1), 20 + row * step)
        for row, names in enumerate(layers)
        for place, name in enumerate(names)
    }
    parts = [
        f'<svg class="layers" viewBox="0 0 {width} {len(layers) * step}" role="img" aria-label="Layers of agebench">'
    ]
    parts.append(
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    )
    parts.append('<path d="M0,0 L8,4 L0,8 z" fill="currentColor"/></marker></defs>')
    for source, target in edges:
        (x1, y1), (x2, y2) = center[source], center[target]
        bend = (x1 + x2) / 2 + (60 if x1 == x2 and y2 - y1 > step else 0)
        parts.append(
            f'<path d="M{x1:.0f},{y1 + height / 2:.0f} Q{bend:.0f},{(y1 + y2) / 2:.0f} {x2:.0f},{y2 - height / 2:.0f}" '
            'fill="none" stroke="currentColor" opacity="0.45" marker-end="url(#tip)"/>'
        )
    for name, (x, y) in center.items():
        parts.append(f'<rect x="{x - 52:.0f}" y="{y - height / 2:.0f}" width="104" height="{height}" rx="5"/>')
        parts.append(f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{escape(name)}</text>')
    return markdown.replace(match[0], "".join([*parts, "</svg>"]))


# --- hooks of mkdocs --------------------------------------------------------------------------------------------------

PAGES = {
    "reference/cli.md": cli_page,
    "reference/settings.md": settings_page,
    "reference/cards.md": cards_page,
    "reference/metrics-json.md": metrics_page,
    "reference/records.md": records_page,
    "reference/codes.md": codes_page,
    "adr/index.md": adr_index,
}


def generated_files() -> dict[str, str]:
    """Return all generated files of the site: path -> content."""
    files = {path: build() for path, build in PAGES.items()}
    files |= {page: (ROOT / name).read_text(encoding="utf-8") for page, name in PROJECT_PAGES.items()}
    for tutorial in sorted((DOCS / "tutorials").glob("*.md")):
        if tutorial.stem != "index":
            notebook = to_notebook(tutorial.read_text(encoding="utf-8"))
            files[f"tutorials/{tutorial.stem}.ipynb"] = json.dumps(notebook, indent=1)
    return files


def add_to_navigation(nav: list[Any], pages: set[str]) -> list[Any]:
    """Return the navigation with pages that it does not name yet at the end of the section of their folder.

    Args:
        nav: `nav` of mkdocs.yml.
        pages: paths below docs/.
    """

    def named(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in named(part)]

    missing = sorted(pages - set(named(nav)))
    result = []
    for section in nav:
        ((title, entries),) = section.items()
        folder = named(entries)[0].rpartition("/")[0]
        added = [page for page in missing if folder and page.rpartition("/")[0] == folder]
        result.append({title: [*entries, *added] if isinstance(entries, list) else entries})
    return result


def on_config(config: Any) -> Any:
    """Add pages of the how-to, explanation and tutorial folders that the navigation does not name."""
    folders = ("tutorials", "how-to", "explanation", "reference")
    pages = {path.relative_to(DOCS).as_posix() for folder in folders for path in (DOCS / folder).glob("*.md")}
    config["nav"] = add_to_navigation(config["nav"], pages)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages and notebooks."""
    from mkdocs.structure.files import File

    for path, content in generated_files().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace links out of docs/ and the diagram of the layers."""
    uri = page.file.src_uri
    folder = ROOT if uri in PROJECT_PAGES else (DOCS / uri).parent
    if uri in PROJECT_PAGES:
        markdown = markdown.replace("](docs/", "](").replace("](docs)", "](index.md)")
        markdown = re.sub(r"\]\(adr\)", "](adr/index.md)", markdown)
        names = {name: target for target, name in PROJECT_PAGES.items()}
        return re.sub(
            r"\[([^\]]*)\]\(([\w./-]+)((?:#[^)]*)?)\)",
            lambda match: (
                f"[{match[1]}]({names.get(match[2], match[2])}{match[3]})"
                if match[2] in names or (DOCS / match[2]).exists()
                else match[1]
            ),
            markdown,
        )
    return layer_diagram(replace_links(markdown, folder))


def on_post_build(config: Any) -> None:
    """Copy the leaderboard's page into the site."""
    source = ROOT / "reports" / "site"
    if source.is_dir():
        shutil.copytree(source, Path(config["site_dir"]) / "leaderboard", dirs_exist_ok=True)
