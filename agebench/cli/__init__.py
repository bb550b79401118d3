"""The front door. One small file a command; each is imported only when it is called."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from agebench import __version__
from agebench.errors import AgebenchError
from agebench.terminal import printable_streams

# Command -> what it does. The command stands in `agebench.cli.<command>`: `add_arguments(parser)` and `run(arguments)`,
# which returns the exit code.
COMMANDS = {
    "run": "train on one dataset, test on others, write the figures and the report",
    "test": "test a model that is not ours (a file, a callable, a command) on the same faces",
    "suite": "many runs: plan them, do what is not done, see what stands",
    "results": "records of runs: make them, check that their figures hold",
    "reproduce": "a run again, from its record alone: identical, inside the interval, or outside?",
    "leaderboard": "records as one table, with fairness, cost and what to beware of",
    "list": "the datasets, models, suites, heads, readers and detectors there are",
    "info": "one card in full",
    "data": "add, get, list, check or audit datasets on this machine, look at their faces",
    "check": "whether plugins keep their contracts: datasets, models, heads, detectors",
    "new": "a working skeleton of a dataset, a model, a head or a detector: card, code and test",
    "explore": "a dataset before training: labels, groups, splits, pictures; or two of them compared",
    "tune": "step by step to a recipe: sanity check, overfitting, learning rate, weight decay, the long run",
    "explain": "where a trained model looks: heatmaps of the predicted age, with their sanity checks",
    "stress": "how much worse a trained model gets as photographs get worse",
    "predict": "ages for images, folders, videos and cameras, with intervals; as a table or drawn",
    "demo": "a page on this machine: upload, camera, ages with intervals and what they are worth",
    "export": "a trained model as one file for elsewhere: TorchScript, ONNX or torch.export, checked, judged and timed",
    "push": "a finished run on the Hugging Face hub, with a card that says its figures",
    "score": "figures of predictions in a file: intervals, fairness, age gates, uncertainty",
    "compare": "systems on the same images: is a difference shown?",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    with printable_streams():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="agebench",
        description="Cross-dataset benchmark of facial age estimators.",
        epilog="`agebench COMMAND --help` says more.",
    )
    parser.add_argument("--version", action="version", version=f"agebench {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    argv = [*(sys.argv[1:] if argv is None else argv)]  # not list(): once `agebench list` ran, that is its module
    wanted = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        subparser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == wanted:
            module = importlib.import_module(f"agebench.cli.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except AgebenchError as error:
        print(f"agebench: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone (`agebench list | head`); keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.strerror is None:
            raise
        name = "" if error.filename is None else f"{error.filename}: "
        print(f"agebench: {name}{error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("agebench: interrupted", file=sys.stderr)
        return 130
