"""`agebench leaderboard`: write the table of all records."""

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agebench.cli.common_options import add_json, add_registry, load_cards

if TYPE_CHECKING:
    from agebench.leaderboard.image_ranking import ImageRankings
    from agebench.leaderboard.systems import System
    from agebench.registry.catalog import Catalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench leaderboard`."""
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        default=Path("reports/results"),
        help="records (default: reports/results)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="(default: reports/LEADERBOARD.md; csv and latex: standard output)"
    )
    parser.add_argument(
        "--format",
        choices=["markdown", "csv", "latex"],
        default="markdown",
        help="csv and latex contain only the table of MAE (default: markdown)",
    )
    parser.add_argument(
        "--published", metavar="SUITE", default="published", help="suite of results from papers, shown apart"
    )
    parser.add_argument(
        "--site",
        type=Path,
        metavar="DIR",
        help="also write DIR/index.html, a page to sort and filter",
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read the records and write the page."""
    from agebench.errors import UserError
    from agebench.leaderboard.gate_figure import gate_figure
    from agebench.leaderboard.headline import Headline
    from agebench.leaderboard.markdown import group_into_systems, leaderboard, matrix_csv, matrix_latex
    from agebench.leaderboard.records import garbage_collection_paused
    from agebench.leaderboard.verify import read_valid_records
    from agebench.utils.io import check_file, check_folder, write_text

    if arguments.json and arguments.format != "markdown" and not arguments.out:
        raise UserError(
            f"--json and --format {arguments.format} both write to standard output; give --out, or omit one of them"
        )
    if arguments.site:
        check_folder(arguments.site, "--site")
    if arguments.out or arguments.format == "markdown":
        check_file(arguments.out or Path("reports/LEADERBOARD.md"))
    with garbage_collection_paused():
        records, catalog = read_valid_records(arguments.results), load_cards(arguments)
        gc.freeze()  # the records stay in memory: exclude their million values from garbage collection
    rows = group_into_systems(records.values())
    published = catalog.suites.get(arguments.published).published
    ranked = _rank(arguments, rows, catalog)
    if arguments.site:
        from agebench.leaderboard.site import write_site

        print(write_site(arguments.site, rows, published, ranked), file=sys.stderr)
    if arguments.format == "markdown":
        text = leaderboard(rows, published, ranked)
        out = arguments.out or Path("reports/LEADERBOARD.md")
        figure = gate_figure(Headline.from_systems(rows, ranked))
        if figure is not None:
            write_text(out.with_name("gates.svg"), figure)
    else:
        text = matrix_csv(rows) if arguments.format == "csv" else matrix_latex(rows)
        out = arguments.out
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
        print(f"{len(records)} records: {out}", file=sys.stderr)
    if arguments.json:
        from agebench.leaderboard.site import site_data

        print(json.dumps(site_data(rows, published, ranked), indent=2, allow_nan=False))
    return 0


def _rank(arguments: argparse.Namespace, rows: "Sequence[System]", catalogue: "Catalog") -> "ImageRankings":
    """Rank the systems, and store the rankings beside the records if any was computed."""
    from agebench.leaderboard.image_ranking import build_rankings

    ranked = build_rankings(arguments.results, rows, catalogue)
    for sentence in ranked.missing:
        print(sentence, file=sys.stderr)
    return ranked
