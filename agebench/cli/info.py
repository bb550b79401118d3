"""`agebench info NAME`: print one card in full."""

import argparse
import json

from agebench.cli.common_options import add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench info`."""
    parser.add_argument("name", help="a dataset, a model or a suite")
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the card as TOML, with the path of its file."""
    from agebench.errors import UserError
    from agebench.utils.text import did_you_mean

    catalog = load_cards(arguments)
    registries = {
        name: registry
        for registry in (catalog.models, catalog.datasets, catalog.suites)
        for name in (*registry.names(), *registry.broken())
    }
    if arguments.name not in registries:
        raise UserError(
            f"no dataset, model or suite called '{arguments.name}'{did_you_mean(arguments.name, sorted(registries))}"
        )
    registry = registries[arguments.name]
    card: dict[str, object] = registry.get(arguments.name).model_dump(mode="json", exclude_none=True)
    if "protocols" in card and registry is catalog.datasets:
        card["protocols"] = [protocol.to_text() for protocol in catalog.datasets.get(arguments.name).protocols]
    if arguments.json:
        print(json.dumps(card, indent=2))
        return 0
    import tomli_w

    print(f"# {registry.kind} card, {registry.origin(arguments.name)}")
    print(tomli_w.dumps({key: value for key, value in card.items() if value not in ("", [], {})}).rstrip())
    return 0
