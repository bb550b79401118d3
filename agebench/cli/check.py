"""`agebench check NAME`: does a plugin keep its contract?"""

import argparse
import json

from agebench.cli.common_options import add_json, add_registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench check`."""
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="datasets, models, heads, detectors; none: every one there is"
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the checks; exit code 1 if one is broken."""
    from agebench.errors import AgebenchError
    from agebench.plugins.testing import ContractViolation, find_checks

    rows = []
    for check in find_checks(arguments.names, arguments.registry):
        try:
            said, good = check.run(), True
        except (ContractViolation, AgebenchError) as error:
            said, good = str(error), False
        rows.append({"kind": check.kind, "name": check.name, "good": good, "says": said})
        if not arguments.json:
            print(f"{check.kind} {check.name}: good ({said})" if good else f"broken: {said}", flush=True)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    return 0 if all(row["good"] for row in rows) else 1
