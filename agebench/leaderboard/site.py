"""The leaderboard as one HTML page that needs neither a server nor a network."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from agebench._version import __version__
from agebench.config.cards.suite import PublishedResult
from agebench.leaderboard.attributes import attribute_accuracies
from agebench.leaderboard.gate_rates import GateRatesByAge
from agebench.leaderboard.headline import CHALLENGE, LEGAL, Headline, HeadlineRow, describe_largest_gap
from agebench.leaderboard.image_ranking import ImageRankings
from agebench.leaderboard.markdown import NO_RANKINGS, RANKS, describe_ranks
from agebench.leaderboard.marks import LEGEND, caveat_symbol, tested_of
from agebench.leaderboard.ranking import rank_systems
from agebench.leaderboard.scatter import CELL_YEARS
from agebench.leaderboard.schema import Record
from agebench.leaderboard.shifts import system_shift
from agebench.leaderboard.systems import (
    UNRANKED,
    Caveat,
    System,
    baseline_mae,
    caveats,
    failure_to_process_counts,
    images_per_second,
    largest_gap,
    pool_seeds,
    robustness_summary,
    test_sets,
    worst_group,
)
from agebench.metrics.schema import GroupMetrics, MetricValue
from agebench.reports.formatting import group_name, sanitize
from agebench.utils.io import write_text

_WEB = Path(__file__).parent / "web"
_SHOWN = ("mae", "rmse", "bias", "cs5", "range_mae")
# Left out of a run's facts: shown elsewhere, or of no use to a reader.
_ELSEWHERE = ("name", "title", "head", "size", "parameters", "initial")


def write_site(
    folder: Path,
    rows: Sequence[System],
    published: Iterable[PublishedResult] = (),
    ranked: ImageRankings = NO_RANKINGS,
) -> Path:
    """Write `folder/index.html`: table, heatmap, plots and a view of every system, in one file.

    Args:
        folder: the folder of the page; it is created if it is missing.
        rows: the systems.
        published: results that were reported elsewhere.
        ranked: the rankings of the systems.

    Returns:
        The path of the page.
    """
    path = folder / "index.html"
    write_text(path, page(rows, published, ranked))
    return path


def page(rows: Sequence[System], published: Iterable[PublishedResult] = (), ranked: ImageRankings = NO_RANKINGS) -> str:
    """Render the page.

    The content of records and cards is embedded as JSON, in which `tojson` escapes every character that could end its
    element; the script inserts it as text, never as markup.

    Args:
        rows: the systems.
        published: results that were reported elsewhere.
        ranked: the rankings of the systems.

    Returns:
        The page's HTML.
    """
    environment = Environment(
        loader=FileSystemLoader(_WEB), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment.get_template("page.html.jinja").render(asset=_asset, data=site_data(rows, published, ranked))


def site_data(
    rows: Sequence[System], published: Iterable[PublishedResult], ranked: ImageRankings = NO_RANKINGS
) -> dict[str, object]:
    """Return the page's content; a metric value is [value, low, high], with None for an unknown end."""
    found = rank_systems(rows)
    return {
        "agebench": __version__,
        "tests": test_sets(rows),
        "legend": _plain(LEGEND).replace("`", ""),
        # A dataset that no copy has in full would leave no system.
        "unfit": [Caveat.UNKNOWN_TRAINING_DATA, *sorted(UNRANKED - {Caveat.INCOMPLETE_TEST_SET})],
        "ranks": [RANKS, *map(_plain, describe_ranks(found, ranked))],
        "headline": _headline(rows, ranked),
        "systems": [_system(row, ranked) for row in rows],
        "floors": baseline_mae(rows),
        "published": [row.model_dump(mode="json") for row in published],
    }


def _headline(rows: Sequence[System], ranked: ImageRankings) -> dict[str, object]:
    """The first table and the gate view; a rate is [value, low, high]."""
    headline = Headline.from_systems(rows, ranked)
    place = {row.records[0].id: number for number, row in enumerate(rows)}
    return {
        "tests": headline.tests,
        "ranges": sorted(headline.ranges),
        "gateTests": headline.gate_tests,
        "gate": [LEGAL, CHALLENGE],
        "cellYears": CELL_YEARS,
        "trust": headline.trust,
        "note": headline.note,
        "rows": [_headline_row(row, place[row.system.records[0].id]) for row in headline.rows],
    }


def _headline_row(row: HeadlineRow, place: int) -> dict[str, object]:
    gap = row.widest_gap
    return {
        "place": place,
        "name": sanitize(row.name),
        "kind": row.kind,
        "licence": sanitize(row.licence),
        "gap": gap and [f"{sanitize(gap[0])}: {describe_largest_gap(gap[1])}", *_numbers(gap[1].difference)],
        "cells": {
            test: {
                "error": _numbers(cell.error),
                "mark": cell.mark,
                "tested": cell.tested,
                "minors": _numbers(cell.minors),
                "n": cell.n_minors,
                "refused": _numbers(cell.refused),
                "rank": cell.rank,
            }
            for test, cell in row.cells.items()
        },
        "gates": {test: _gates(rates) for test, rates in row.gates.items()},
        "stages": {
            test: {error.stage: [error.n, *_numbers(error.mae)] for error in rates.stages}
            for test, rates in row.gates.items()
        },
    }


def _gates(rates: GateRatesByAge) -> dict[str, object]:
    """Legal age -> the minors that count, the first challenge age and the rates of each group, by challenge age."""
    return {
        str(gates.legal): {
            "minors": gates.minors,
            "first": gates.challenge[0],
            "groups": [
                [
                    sanitize(group.grouping),
                    sanitize(group_name(group.grouping, group.group)),
                    group.n_minors,
                    group.n_adults,
                    group.passing,
                    group.refused,
                ]
                for group in gates.groups
                if "*" not in group.grouping
            ],
        }
        for gates in rates.gates
    }


def _system(row: System, ranked: ImageRankings) -> dict[str, object]:
    first = row.records[0]
    model = first.model
    lost, read = failure_to_process_counts(row)
    speed = images_per_second(row)
    return {
        "name": sanitize(row.name),
        "label": sanitize(model.head or model.name or row.name),
        "train": row.train and sanitize(row.train),
        "seeds": len(row.seeds),
        "ranks": _ranks(row, ranked),
        "tests": {test: _test(row, test) for test in row.tests},
        "shifts": _shifts(row, ranked),
        "scatter": {
            test: cells
            for test in row.tests
            if (cells := ranked.scatters.get((row.records_on(test)[0].id, test))) is not None
        },
        "parameters": model.parameters,
        "speed": speed and round(speed, 1),
        "stress": {
            test: [*_numbers(of.relative_error), of.corruptions, of.strengths]
            for test, of in robustness_summary(row).items()
        },
        "lost": lost,
        "read": read,
        "flags": caveats(row),
        "runs": [_run(record) for record in row.records],
        "facts": _facts(first),
        "about": sanitize(first.config.model.about or ""),
        "citation": sanitize(first.config.model.citation or model.citation or ""),
        "config": _config(first),
    }


def _ranks(row: System, ranked: ImageRankings) -> list[list[Any]]:
    """[number of the ranking, its test sets, lower end, upper end] of each ranking of the system."""
    return [
        [number, ranking.tests, system.rank_low, system.rank_high]
        for number, ranking in enumerate(ranked.rankings, 1)
        for system in ranking.systems
        if row.records[0].id in system.runs
    ]


def _shifts(row: System, ranked: ImageRankings) -> dict[str, list[list[float | None]]]:
    """Test set -> difference to the training set's held-out part, its three parts, and what a recalibration mends."""
    found = {test: system_shift(row, test, ranked.shifts) for test in row.tests}
    return {
        test: [_numbers(part) for part in (of.difference, of.mix, of.same, of.outside, of.recalibrated)]
        for test, of in found.items()
        if of is not None
    }


def _test(row: System, test: str) -> dict[str, object]:
    entries = row.test_entries(test)
    worst, gap = worst_group(row, test), largest_gap(row, test)
    return {
        "n": entries[0].n,
        "subjects": entries[0].subjects,
        "tested": tested_of(row, test),
        "mark": caveat_symbol(row, test),
        **{key: _numbers(row.metric(test, key)) for key in _SHOWN},
        "worst": worst and [sanitize(group_name(*worst[:2])), *_numbers(worst[2])],
        "gap": gap
        and [
            f"{sanitize(group_name(gap.grouping, gap.worst))} above {sanitize(group_name(gap.grouping, gap.best))}"
            + (f"; any of {len(gap.worst_groups)} may be worst" if len(gap.worst_groups) > 1 else ""),
            *_numbers(gap.difference),
        ],
        "gapShown": gap and gap.shown,
        "attributes": [
            [
                sanitize(found.target),
                found.n,
                _numbers(found.accuracy),
                [[sanitize(name), _numbers(recall)] for name, recall in found.recalls.items()],
                found.majority,
            ]
            for found in attribute_accuracies(row, test)
        ],
        "groups": {
            sanitize(group_name(grouping, grouping)): [
                _group(grouping, name, [entry.groups.get(grouping, {}).get(name, GroupMetrics()) for entry in entries])
                for name in groups
            ]
            for grouping, groups in entries[0].groups.items()
        },
    }


def _group(grouping: str, name: str, by_seed: Sequence[GroupMetrics]) -> list[Any]:
    """[name, n, whether it is large enough to be ranked, MAE, bias]."""
    mae, bias = pool_seeds([group.mae for group in by_seed]), pool_seeds([group.bias for group in by_seed])
    first = by_seed[0]
    return [
        sanitize(group_name(grouping, name)),
        first.n if "n" in first.model_fields_set else None,
        bool(first.eligible),
        _numbers(mae),
        _numbers(bias),
    ]


def _run(record: Record) -> dict[str, object]:
    return {
        "id": sanitize(record.id),
        "seed": record.config.seed,
        "mae": {name: _numbers(test.metric("mae")) for name, test in record.metrics.tests.items()},
    }


def _facts(record: Record) -> list[list[str]]:
    """Describe the inputs of a metric as (name, value) in words."""
    model, hardware, faces = record.model.to_json(), record.hardware or {}, record.faces
    initial = record.model.initial or {}
    shown = "whole photographs" if faces.are_photographs else f"{faces.size} px, coverage {faces.coverage}"
    facts: list[tuple[str, object]] = [
        *((key.replace("_", " "), value) for key, value in model.items() if key not in _ELSEWHERE),
        ("digest of the initial weights", initial.get("sha256")),
        ("of these the backbone's", initial.get("backbone_sha256")),
        ("faces", shown if faces.model_fields_set else ""),
        *((f"faces of {name}", how) for name, how in (faces.datasets or {}).items()),
        *((f"detector of {name}", detector.get("name")) for name, detector in (faces.detectors or {}).items()),
        *((f"fingerprint of {name}", samples.fingerprint) for name, samples in record.samples.items()),
        *((f"terms of {name}", dataset.licence) for name, dataset in record.datasets.items()),
        *((record.plugins or {}).items()),
        ("epochs", record.epochs),
        ("machine", ", ".join(f"{key} {value}" for key, value in hardware.items())),
        ("agebench", record.agebench),
        ("commit", record.git),
        ("versions", ", ".join(f"{key} {value}" for key, value in (record.versions or {}).items())),
    ]
    return [[sanitize(name), sanitize(_in_words(value))] for name, value in facts if value not in (None, "", {}, [])]


def _in_words(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _config(record: Record) -> str:
    try:
        return tomli_w.dumps(record.settings)
    except (TypeError, ValueError):  # a record by another hand: None has no place in TOML
        return json.dumps(record.settings, indent=2)


def _numbers(metric: MetricValue) -> list[float | None]:
    ends = (metric.value, metric.ci_low, metric.ci_high)
    return [None if end is None else round(end, 4) for end in ends]


def _plain(markdown: str) -> str:
    """Our own sentences, without the escapes that Markdown wants."""
    for character in "\\`*[]|~$_":
        markdown = markdown.replace(f"\\{character}", character)
    return markdown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _asset(name: str) -> Markup:
    """Read a style sheet or script of this package, which the template inserts unescaped."""
    return Markup((_WEB / name).read_text(encoding="utf-8"))
