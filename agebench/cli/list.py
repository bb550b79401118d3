"""`agebench list`: list datasets, models, suites, heads, readers and detectors."""

import argparse
import json
import textwrap

from agebench.cli.common_options import add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench list`."""
    parser.add_argument(
        "kind",
        nargs="?",
        choices=("datasets", "models", "suites", "heads", "readers", "detectors"),
        help="list only this kind",
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print names and titles, and broken plugins with the reason."""
    from agebench.registry.builtin import detectors, heads, readers

    catalog = load_cards(arguments)
    # First, because it loads the plugins and so determines which names are usable.
    broken: dict[str, str] = {}
    for registry in (catalog.datasets, catalog.models, catalog.suites):
        for name, reason in registry.broken().items():
            broken[f"{name} ({registry.kind})" if name in broken else name] = reason
    tables = {
        "datasets": {name: catalog.datasets.get(name).title for name in catalog.datasets.names()},
        "models": {name: catalog.models.get(name).title for name in catalog.models.names()},
        "suites": {name: catalog.suites.get(name).title for name in catalog.suites.names()},
        "heads": dict.fromkeys(heads.names(), ""),
        "readers": dict.fromkeys(readers.names(), ""),
        "detectors": dict.fromkeys(detectors.names(), ""),
    }
    kinds = [arguments.kind] if arguments.kind else list(tables)
    if kinds == ["detectors"]:  # their states need numpy, which the list of everything does not load
        from agebench.data.faces.detectors.base import describe_detectors

        tables["detectors"] = describe_detectors()
    if arguments.json:
        print(json.dumps({kind: tables[kind] for kind in kinds} | {"broken": broken}, indent=2))
        return 0
    for kind in kinds:
        titles = tables[kind]
        print(f"{kind}:")
        if any(titles.values()):
            width = max(map(len, titles))
            print("\n".join(f"  {name:<{width}}  {title}".rstrip() for name, title in titles.items()))
        else:
            print(textwrap.fill(", ".join(titles), width=100, initial_indent="  ", subsequent_indent="  "))
    if broken:
        print("broken:")
        for name, reason in broken.items():
            print(f"  {name}: {reason}")
    return 0
