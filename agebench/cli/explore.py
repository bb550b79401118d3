"""`agebench explore`: the profile of a dataset before training, as one page."""

import argparse
import json
from pathlib import Path

from agebench.cli._numbers import seed
from agebench.cli.common_options import add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench explore`."""
    parser.add_argument(
        "names", nargs="+", metavar="DATASET", help="a dataset; further ones are compared with the first"
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of the split and of the random images (default: 0)"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the page (default: explore/<names>)")
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Profile the datasets, write the page, print its path."""
    names = list(dict.fromkeys(arguments.names))
    found = load_cards(arguments).datasets
    chosen = [found.get(name) for name in names]
    folder = arguments.out or Path("explore") / "-".join(names)
    from agebench.analysis.eda.report import write_profile
    from agebench.utils.io import check_folder

    check_folder(folder)
    content = write_profile(folder, chosen, seed=arguments.seed)
    if arguments.json:
        print(json.dumps(content.to_json() | {"report": str(folder / "report.html")}, indent=2))
        return 0
    for name, summary in content.datasets.items():
        ages = summary.ages
        print(f"{name}: {summary.n:,} images, ages {ages['min']:g} to {ages['max']:g}, median {ages['p50']:g}")
    for pair in content.comparisons:
        print(f"{pair.first} and {pair.second}: {100 * pair.age_overlap:.0f} % of the ages in common")
    print(f"\nreport: {folder / 'report.html'}")
    return 0
