"""`agebench check NAME`: check the contracts of plugins."""

import argparse
import json

from agebench.cli.common_options import add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench check`."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets, models, heads, detectors; none: all")
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="of one external model: try framings and channel orders on labelled faces, and print what its card should have",
    )
    parser.add_argument(
        "--test", metavar="DATASET", default="", help="of --sweep: the labelled faces (default: utk, else fgnet)"
    )
    parser.add_argument(
        "--limit", metavar="N", type=int, default=300, help="of --sweep: number of faces (default: 300)"
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the checks; return 1 if a contract is violated."""
    if arguments.sweep:
        return _sweep(arguments)
    from agebench.errors import AgebenchError
    from agebench.plugins.testing import ContractViolation, find_checks

    rows = []
    for check in find_checks(arguments.names, arguments.registry):
        try:
            message, passed = check.run(), True
        except (ContractViolation, AgebenchError) as error:
            message, passed = str(error), False
        rows.append({"kind": check.kind, "name": check.name, "good": passed, "says": message})
        if not arguments.json:
            print(f"{check.kind} {check.name}: good ({message})" if passed else f"broken: {message}", flush=True)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    return 0 if all(row["good"] for row in rows) else 1


def _sweep(arguments: argparse.Namespace) -> int:
    """Sweep the framing of one external model and print the table."""
    from agebench.config.cards.external import ExternalCard
    from agebench.errors import UserError
    from agebench.runs.framing_sweep import open_labelled_faces, sweep_framing, sweep_text

    if len(arguments.names) != 1:
        raise UserError("--sweep takes the name of one external model")
    if arguments.limit < 30:
        raise UserError(f"--limit {arguments.limit}: a sweep needs 30 faces or more")
    catalog = load_cards(arguments)
    card = catalog.models.get(arguments.names[0])
    if not isinstance(card, ExternalCard):
        raise UserError(
            f"model '{card.name}' is trained here, with the framing of its run; --sweep is for external models"
        )
    result = sweep_framing(card, open_labelled_faces(catalog, arguments.test), count=arguments.limit)
    print(json.dumps(result.model_dump(mode="json"), indent=2) if arguments.json else sweep_text(result))
    return 0
