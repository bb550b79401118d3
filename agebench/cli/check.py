"""`agebench check NAME`: check the contracts of plugins."""

import argparse
import json

from agebench.cli.common_options import add_json, add_registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench check`."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets, models, heads, detectors; none: all")
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the checks; return 1 if a contract is violated."""
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
