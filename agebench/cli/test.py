"""`agebench test`: a model that was not trained here, on the same faces, with the same figures and report."""

import argparse
import json
from pathlib import Path
from typing import Any

from agebench.cli._messages import print_already_finished
from agebench.cli.common_options import add_exclude, add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench test`."""
    parser.add_argument("--model", metavar="NAME", help="a model card, see `agebench list models`")
    parser.add_argument(
        "--pretrained", metavar="FILE", help="of a model of the zoo, which is not external: its authors' checkpoint"
    )
    parser.add_argument("--test", metavar="DATASET", action="append", help="a dataset, the whole of it (repeatable)")
    add_exclude(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="of the bootstrap (default: 0)")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, … (default: auto)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any setting, e.g. faces.coverage=1.2 (repeatable)",
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="settings from a file, e.g. a run folder's config.toml"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="the run's folder (default: runs/<model>-on-<tests>)")
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Resolve the settings, ask the model, print its table."""
    from agebench.runs.config import parse_setting, read_settings
    from agebench.runs.external_config import resolve_external
    from agebench.runs.published_config import PublishedConfig, resolve_published
    from agebench.runs.run_dir import RunDir

    flags: dict[str, Any] = {
        "seed": arguments.seed,
        "device": arguments.device,
        "data": {key: value for key in ("test", "exclude") if (value := getattr(arguments, key))} or None,
        "model": {"name": arguments.model} if arguments.model else None,
        "pretrained": arguments.pretrained,
    }
    layers = [
        read_settings(arguments.config) if arguments.config else {},
        {key: value for key, value in flags.items() if value is not None},
        *(parse_setting(text) for text in arguments.set),
    ]
    catalogue = load_cards(arguments)
    published = any("pretrained" in layer for layer in layers)
    config = resolve_published(catalogue, layers) if published else resolve_external(catalogue, layers)
    folder = RunDir(arguments.out or Path("runs") / config.name())
    if folder.finished(config):
        print_already_finished(folder, config, catalogue, folder.path)
    else:
        with folder.locked():  # torch is loaded only now
            # Looked at again: another process may have done it while this one was starting.
            if folder.finished(config):
                pass
            elif isinstance(config, PublishedConfig):
                from agebench.runs.published import run_published

                run_published(config, catalogue, folder)
            else:
                from agebench.runs.external import run_external

                run_external(config, catalogue, folder)
    if arguments.json:
        print(json.dumps(folder.metrics(), indent=2))
    else:
        from agebench.metrics.schema import MetricsFile
        from agebench.reports.run import summary

        print(
            f"{config.model.title}\n\n{summary(MetricsFile.from_json(folder.metrics()))}\n\nreport: {folder.path / 'report.md'}"
        )
    return 0
