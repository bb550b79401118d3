"""The front door. One small file a command; each is imported only when it is called."""

import argparse
import difflib
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence

from agebench._version import __version__
from agebench.errors import AgebenchError, UserError
from agebench.utils.progress import above_progress, printable, step
from agebench.utils.terminal import printable_streams

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

# Words of other programs -> the command that does it here.
SYNONYMS = {
    "train": "run",
    "fit": "run",
    "finetune": "run",
    "evaluate": "test",
    "eval": "test",
    "benchmark": "suite",
    "bench": "suite",
    "metrics": "score",
    "diff": "compare",
    "download": "data get",
    "get": "data get",
    "add": "data add",
    "audit": "data audit",
    "faces": "data faces",
    "dataset": "data",
    "datasets": "list datasets",
    "models": "list models",
    "show": "info",
    "ls": "list",
    "create": "new",
    "init": "new",
    "infer": "predict",
    "inference": "predict",
    "serve": "demo",
    "app": "demo",
    "upload": "push",
    "publish": "push",
    "robustness": "stress",
    "heatmap": "explain",
    "record": "results",
    "records": "results",
    "sweep": "tune",
    "search": "tune",
    "verify": "check",
    "convert": "export",
}


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + ("" if summary.endswith(("?", ".", "!")) else ".")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    _open_standard_streams()
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
        subparser = commands.add_parser(name, help=summary, description=_sentence(summary))
        if name == wanted:
            module = importlib.import_module(f"agebench.cli.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    if wanted is not None and wanted not in COMMANDS:
        print(f"agebench: no command '{printable(wanted[:80])}'{_suggestion(wanted)}", file=sys.stderr)
        return UserError.exit_code
    arguments = parser.parse_args(argv)
    try:
        with above_progress(), step(f"agebench {arguments.command}"):
            code = int(arguments.run(arguments))
        return code if _flushed() else 1
    except AgebenchError as error:
        print(f"agebench: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone (`agebench list | head`); keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("agebench: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        # An unbuffered stream keeps nothing that a flush could fail on: a line more shows whether it was the stream.
        if isinstance(error, OSError) and not _flushed("\n"):
            return 1
        if not _is_short_of_memory(error):
            if isinstance(error, OSError) and error.strerror is not None:
                name = "" if error.filename is None else f"{error.filename}: "
                print(f"agebench: {name}{error.strerror}", file=sys.stderr)
                return 1
            raise
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        print(
            f"agebench: out of memory ({reason}){_memory_limit()}. Allow more memory, or take a smaller model or batch",
            file=sys.stderr,
        )
        return 1


def _open_standard_streams() -> None:
    """Have standard output take every character, and nothing else open where a standard stream is closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would be written to by every print
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process
        elif isinstance(stream, io.TextIOWrapper) and name == "stdout":
            stream.reconfigure(errors="replace")  # a terminal that knows ASCII alone shows "?" for a dash


def _flushed(more: str = "") -> bool:
    """Whether all that was printed, and `more`, could be written; says so where not."""
    try:
        sys.stdout.write(more)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"agebench: standard output cannot be written: {error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _memory_limit() -> str:
    """For a message: the limit of this process's address space, "" where there is none."""
    try:
        import resource
    except ImportError:  # not on Windows
        return ""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return "" if limit == resource.RLIM_INFINITY else f"; ulimit -v allows {limit // 1024:,} KiB"


def _is_short_of_memory(error: Exception) -> bool:
    """Whether an error is one of lacking memory; libraries raise all kinds where the address space is limited."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return bool(_memory_limit()) and isinstance(error, RuntimeError | ImportError | OSError | SystemError)


def _suggestion(word: str) -> str:
    """Return the end of the message about an unknown command: the closest one, by meaning or by letters."""
    word = word.lower()
    close = [SYNONYMS[word]] if word in SYNONYMS else difflib.get_close_matches(word[:80], COMMANDS, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(f'`agebench {name}`' for name in close)}? " if close else ""
    return f"; {hint}`agebench --help` lists the commands"
