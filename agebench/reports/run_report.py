"""The report of one run: report.md and its figures, from what the run wrote down."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.files import write_text
from agebench.reports import figures
from agebench.reports.tables import DASH, count, duration, escaped, markdown_table, number, with_interval

SIGNIFICANT = 0.05


def write_report(folder: Path) -> Path:
    """Write `report.md` and `figures/` into a run's folder, from metrics.json, manifest.json, history.json and predictions."""
    metrics, manifest, history = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("metrics.json", "manifest.json", "history.json")
    )
    drawn = _draw(folder, metrics, history)
    parts = [
        f"# {escaped(manifest['name'])}",
        _in_words(metrics, manifest),
        cross_dataset_table(metrics),
        _picture("Cumulative score of every test set", "cumulative-scores"),
        "## By age",
        _age_tables(metrics),
        _picture("Error and bias by age", "error-by-age"),
        _picture("Predicted against true age", "scatter"),
        "## For whom it is worse",
        *_fairness(metrics, drawn),
        "## How it was measured",
        _how(metrics, manifest),
        _samples_table(manifest),
        "## How it was trained",
        _training(manifest),
        _picture("Learning curves", "learning-curves"),
        "To repeat it: `agebench run --config config.toml --out DIR`, from this folder.",
    ]
    report = folder / "report.md"
    write_text(report, "\n\n".join(part for part in parts if part) + "\n")
    return report


def summary(metrics: dict[str, Any]) -> str:
    """What the command line shows at the end of a run."""
    return f"trained on {metrics['train']}\n\n{cross_dataset_table(metrics)}"


def cross_dataset_table(metrics: dict[str, Any]) -> str:
    """One row a test set; `median` is the MAE of always answering the training set's median age."""
    rows = []
    for name, test in metrics["tests"].items():
        overall = test["overall"]
        label = f"{name} (held-out part)" if name == metrics["train"] else name
        rows.append(
            [
                escaped(label),
                count(test["n"]),
                with_interval(overall["mae"]),
                with_interval(overall.get("rmse")),
                with_interval(overall.get("bias")),
                with_interval(overall.get("cs5"), digits=1, percent=True),
                number(test.get("baseline_mae")),
            ]
        )
    return markdown_table(["test set", "n", "MAE (years)", "RMSE", "bias", "CS@5", "MAE of the median"], rows)


def _in_words(metrics: dict[str, Any], manifest: dict[str, Any]) -> str:
    home, model = metrics["train"], manifest["model"]
    sentences = [
        f"**{escaped(model['title'])}** with the head `{model['head']}`, trained on **{escaped(manifest['train']['title'])}**."
    ]
    for name, test in metrics["tests"].items():
        mae = with_interval(test["overall"]["mae"])
        if name == home:
            sentences.append(f"On held-out faces of the same dataset it is off by {mae} years in the mean.")
        else:
            sentences.append(f"On faces it was not trained for ({escaped(name)}) it is off by {mae} years in the mean.")
    sentences.append("Brackets hold 95 % bootstrap intervals.")
    return " ".join(sentences)


def _age_tables(metrics: dict[str, Any]) -> str:
    tests = metrics["tests"]
    bands = list(dict.fromkeys(band for test in tests.values() for band in test["groups"].get("age_band", {})))
    bands.sort(key=lambda band: float(band.rstrip("+").split("-")[0]))
    rows = []
    for band in bands:
        row = [band]
        for test in tests.values():
            entry = test["groups"].get("age_band", {}).get(band)
            row += (
                [count(entry["n"]), with_interval(entry["mae"]), with_interval(entry.get("bias"))]
                if entry
                else [DASH] * 3
            )
        rows.append(row)
    headers = [f"{escaped(name)}: {what}" for name in tests for what in ("n", "MAE", "bias")]
    return markdown_table(["true age", *headers], rows)


def _fairness(metrics: dict[str, Any], drawn: set[str]) -> list[str]:
    parts = []
    for name, test in metrics["tests"].items():
        rows = [
            [
                escaped(f"{group}") + ("" if entry.get("ranked", True) else " (too few to rank)"),
                count(entry["n"]),
                with_interval(entry["mae"]),
                with_interval(entry.get("mae_standardised")),
                with_interval(entry.get("bias")),
                with_interval(entry.get("cs5"), digits=1, percent=True),
            ]
            for grouping, groups in test["groups"].items()
            if grouping != "age_band"
            for group, entry in groups.items()
        ]
        parts.append(f"### {escaped(name)}")
        if not rows:
            parts.append("No groups are annotated in this dataset, so nothing can be said here.")
            continue
        parts.append(markdown_table(["group", "n", "MAE (years)", "MAE at equal ages", "bias", "CS@5"], rows))
        parts += [_gap_in_words(grouping, gap) for grouping, gap in test.get("gaps", {}).items() if gap]
        if f"groups-{name}" in drawn:
            parts.append(_picture(f"MAE by group, {name}", f"groups-{name}"))
    return parts


def _gap_in_words(grouping: str, gap: dict[str, Any]) -> str:
    difference = gap.get("difference")
    if not difference or difference.get("value") is None:
        return ""
    worst, best = escaped(gap["worst"]), escaped(gap.get("best", "the others"))
    test = "" if gap.get("p_holm") is None else f"; permutation test, Holm-corrected: p = {gap['p_holm']:.3f}"
    measured = f"{with_interval(difference)} years between {worst} and {best}{test}"
    equal = (gap.get("standardised") or {}).get("difference") or {}
    at_equal_ages = f" At equal ages: {with_interval(equal)}." if equal.get("value") is not None else ""
    if gap.get("p_holm") is not None and gap["p_holm"] > SIGNIFICANT:
        return f"**{escaped(grouping)}**: no difference is shown ({measured}).{at_equal_ages}"
    if at_equal_ages and gap.get("shrinks"):
        at_equal_ages += " So part of the gap comes from the groups' different ages, not from the model."
    return f"**{escaped(grouping)}**: worst for {worst} ({measured}).{at_equal_ages}"


def _how(metrics: dict[str, Any], manifest: dict[str, Any]) -> str:
    faces = manifest["faces"]
    ways = {
        "none": "as they are (framed like the template already)",
        "landmarks": "by annotated points",
        "detect": "by detection",
    }
    prepared = "; ".join(f"{escaped(name)} {ways.get(mode, mode)}" for name, mode in faces["datasets"].items())
    subjects = [name for name, test in metrics["tests"].items() if test.get("subjects")]
    drawn = f" (of {', '.join(map(escaped, subjects))}: subjects)" if subjects else ""
    return (
        f"Every face was brought to one template at {faces['size']} px, coverage {faces['coverage']:g}: {prepared}. "
        f"The test sets were read once, after training; the epoch was chosen on the validation part of the training set. Exact "
        f"copies and subjects stay on one side of the split. Intervals resample images{drawn}."
    )


def _samples_table(manifest: dict[str, Any]) -> str:
    rows = []
    for name, found in manifest["samples"].items():
        parts = [count(found[part]) if part in found else DASH for part in ("read", "train", "val", "test")]
        dropped = "; ".join(f"{count(n)} × {escaped(reason)}" for reason, n in found["quarantined"].items())
        rows.append(
            [escaped(name), *parts, count(found["duplicates"]) if "duplicates" in found else DASH, dropped or "none"]
        )
    return markdown_table(["dataset", "read", "train", "val", "test", "exact copies", "put aside, and why"], rows)


def _training(manifest: dict[str, Any]) -> str:
    model, times, hardware = manifest["model"], manifest["timings"], manifest["hardware"]
    machine = hardware.get("gpu") or f"{hardware['cores']} cores of {hardware['cpu']}"
    commit = f", commit `{manifest['git']}`" if manifest.get("git") else ""
    return (
        f"`{escaped(model['backbone'])}`, {model['parameters'] / 1e6:.1f} million parameters, "
        f"started from {_start(model['weights'])}; "
        f"{manifest['epochs']} epochs, the best of them {manifest['best_epoch']}; seed {manifest['seed']}. "
        f"{times['images_per_s']:.0f} images/s on {escaped(machine)}, {duration(times['train_s'])} of training, "
        f"{duration(times['total_s'])} in all. agebench {manifest['agebench']}, torch "
        f"{manifest['versions']['torch']}{commit}. The full recipe is in `config.toml`."
    )


def _start(weights: str) -> str:
    return "random weights" if weights == "random" else f"pre-trained weights ({escaped(weights)})"


def _picture(title: str, name: str) -> str:
    return f"![{escaped(title)}](figures/{name}.png)"


def _draw(folder: Path, metrics: dict[str, Any], history: list[dict[str, float]]) -> set[str]:
    """Write every figure that the run has; returns their names."""
    tests = metrics["tests"]
    predictions = {
        name: pd.read_parquet(folder / "predictions" / f"{name}.parquet", columns=["age", "age_pred"]) for name in tests
    }
    made = {
        "scatter": figures.scatter(predictions, tests),
        "error-by-age": figures.error_by_age(tests),
        "cumulative-scores": figures.cumulative_scores(tests),
        "learning-curves": figures.learning_curves(history),
        **{f"groups-{name}": figures.groups(name, test) for name, test in tests.items()},
    }
    kept = {name: figure for name, figure in made.items() if figure is not None}
    for name, figure in kept.items():
        figures.save(figure, folder / "figures" / f"{name}.png")
    return set(kept)
