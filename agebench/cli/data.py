"""`agebench data import|download|list|verify|audit|align`: the datasets on this machine."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.cli import data_audit, data_faces
from agebench.cli.common_options import add_json, add_registry, load_cards

if TYPE_CHECKING:
    from agebench.config.cards.dataset import DatasetCard
    from agebench.data.storage.importer import ImportReport
    from agebench.data.storage.verify import VerifyReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `agebench data` and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    add = actions.add_parser("import", aliases=["add"], help="import an archive or a folder")
    add.add_argument("name", help="the dataset's card, see `agebench list datasets`")
    add.add_argument("path", type=Path, help="a tar or zip archive, or a folder")
    add.add_argument("--link", action="store_true", help="link to the folder instead of copying it")
    add.add_argument("--replace", action="store_true", help="replace an existing valid copy")
    add.set_defaults(act=_add)

    get = actions.add_parser("download", aliases=["get"], help="download a dataset whose card names an open source")
    get.add_argument("name", help="the dataset's card")
    get.set_defaults(act=_get)
    for action in (add, get):
        action.add_argument(
            "--allow-partial", action="store_true", help="accept another number of images than the card specifies"
        )

    listing = actions.add_parser("list", help="list the datasets on this machine")
    listing.set_defaults(act=_list)

    check = actions.add_parser(
        "verify", aliases=["check"], help="read labels and open images; exit code 1 if a problem is found"
    )
    check.add_argument("names", nargs="*", metavar="NAME", help="datasets; none: all on this machine")
    check.add_argument("--full", action="store_true", help="open every image, not a sample of 200")
    check.set_defaults(act=_check)

    looking = (data_audit.add_action(actions), data_faces.add_action(actions))
    for action in (add, get, listing, check, *looking):
        add_registry(action)
        add_json(action)


def run(arguments: argparse.Namespace) -> int:
    """Execute the action."""
    return int(arguments.act(arguments))


def _add(arguments: argparse.Namespace) -> int:
    card = load_cards(arguments).datasets.get(arguments.name)
    from agebench.data.storage import importer

    options = {"link": arguments.link, "replace": arguments.replace, "allow_partial": arguments.allow_partial}
    return _added(arguments, card, importer.import_dataset(card, arguments.path, **options))


def _get(arguments: argparse.Namespace) -> int:
    card = load_cards(arguments).datasets.get(arguments.name)
    from agebench.data.storage import importer

    return _added(arguments, card, importer.download_dataset(card, allow_partial=arguments.allow_partial))


def _added(arguments: argparse.Namespace, card: "DatasetCard", report: "ImportReport") -> int:
    if arguments.json:
        _print_json(report)
        return 0
    for problem in report.problems:
        print(f"{card.name} is not valid: {problem}")
    rejected = f", {report.rejected} rejected (see `agebench data verify {card.name}`)" if report.rejected else ""
    state = "was there already" if report.was_present else "added"
    print(f"{card.title} {state}: {report.images} images{rejected}\n{_where(report.root)}\nlicense: {card.licence}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    found = load_cards(arguments).datasets
    from agebench.data.storage.locate import dataset_dir, download_source, needs_files, recover
    from agebench.utils.paths import data_home

    broken = found.broken()
    rows = []
    for name in found.names():
        card = found.get(name)
        home = dataset_dir(card)
        recover(card)
        if not needs_files(card):
            state, where = "generated", ""
        elif home.exists():
            state, where = "here", _where(home)
        else:
            state, where = (
                "missing",
                f"agebench data download {name}" if download_source(card) else f"agebench data import {name} PATH",
            )
        rows.append({"name": name, "title": card.title, "images": card.count, "state": state, "where": where})
    if arguments.json:
        print(json.dumps({"datasets": rows, "broken": broken}, indent=2))
        return 0
    from tabulate import tabulate

    print(tabulate(rows, headers="keys", missingval="–"))
    print(f"\nDatasets live in {data_home()} (AGEBENCH_DATA).")
    for name, reason in broken.items():
        print(f"broken: {name}: {reason}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    found = load_cards(arguments).datasets
    from agebench.data.storage.locate import dataset_dir, needs_files, recover
    from agebench.data.storage.verify import verify_dataset

    chosen = [found.get(name) for name in arguments.names]
    if not chosen:
        every = [found.get(name) for name in found.names() if name not in found.broken()]
        for card in every:
            recover(card)
        chosen = [card for card in every if needs_files(card) and dataset_dir(card).exists()]
    reports = [verify_dataset(card, full=arguments.full) for card in chosen]
    if arguments.json:
        _print_json(reports)
    elif not reports:
        print("no dataset is on this machine yet; `agebench data list` shows how to get one")
    else:
        _print_checks(reports)
    return 1 if any(report.problems for report in reports) else 0


def _print_checks(reports: "list[VerifyReport]") -> None:
    from tabulate import tabulate

    from agebench.data.reject_reasons import TITLES
    from agebench.errors import RejectReason

    rows = [
        {
            "name": report.name,
            "images": report.images,
            "complete copy": report.expected,
            "rejected": sum(report.rejected.values()),
            "opened": report.decoded,
            "unreadable": len(report.unreadable),
            "verdict": "wrong" if report.problems else "good",
        }
        for report in reports
    ]
    for report in reports:
        for problem in report.problems:
            print(f"{report.name}: {problem}")
    print(tabulate(rows, headers="keys", missingval="–"))
    for report in reports:
        for code, count in report.rejected.items():
            title = TITLES[RejectReason(code)]
            print(f"{report.name}: rejected {count:,} as {code}: {title}, e.g. {report.details[code]}")


def _where(root: Path) -> str:
    return f"{root} -> {root.readlink()}" if root.is_symlink() else str(root)


def _print_json(report: Any) -> None:
    content = (
        [dataclasses.asdict(entry) for entry in report] if isinstance(report, list) else dataclasses.asdict(report)
    )
    print(json.dumps(content, indent=2, default=str))
