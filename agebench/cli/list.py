"""`agebench list`: what there is."""

import argparse
import json
import textwrap

from agebench.cli.common_options import add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench list`."""
    parser.add_argument(
        "kind", nargs="?", choices=("datasets", "models", "suites", "heads", "readers", "detectors"), help="only these"
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print names and titles; broken plugins stand below with the reason."""
    from agebench.registry.builtin import detectors, heads, readers

    found = load_cards(arguments)
    # First, because it loads the cards of plugins and so determines which names are good.
    broken: dict[str, str] = {}
    for registry in (found.datasets, found.models, found.suites):
        for name, reason in registry.broken().items():
            broken[f"{name} ({registry.kind})" if name in broken else name] = reason
    tables = {
        "datasets": {name: found.datasets.get(name).title for name in found.datasets.names()},
        "models": {name: found.models.get(name).title for name in found.models.names()},
        "suites": {name: found.suites.get(name).title for name in found.suites.names()},
        "heads": dict.fromkeys(heads.names(), ""),
        "readers": dict.fromkeys(readers.names(), ""),
        "detectors": dict.fromkeys(detectors.names(), ""),
    }
    wanted = [arguments.kind] if arguments.kind else list(tables)
    if arguments.json:
        print(json.dumps({kind: tables[kind] for kind in wanted} | {"broken": broken}, indent=2))
        return 0
    for kind in wanted:
        titles = tables[kind]
        print(f"{kind}:")
        if any(titles.values()):
            width = max(map(len, titles))
            print("\n".join(f"  {name:<{width}}  {title}" for name, title in titles.items()))
        else:
            print(textwrap.fill(", ".join(titles), width=100, initial_indent="  ", subsequent_indent="  "))
    if broken:
        print("broken:")
        for name, reason in broken.items():
            print(f"  {name}: {reason}")
    return 0
