"""The provenance of a run, in words and tables: faces, what was used and left out, training and machine."""

from collections.abc import Mapping
from typing import Any

from agebench.metrics.schema import ProtocolSummary
from agebench.reports.formatting import (
    DASH,
    escape_markdown,
    format_count,
    format_duration,
    markdown_table,
    settings,
)
from agebench.reports.sections.splits import leaks_of

# Every framing that a card may name, after "its faces are".
ALIGNMENT_NAMES = {
    "none": "as they come, framed like the template already",
    "landmarks": "aligned by annotated points",
    "detect": "found and aligned by a detector",
    "letterbox": "cut out by their annotated boxes, unaligned, and fitted into black",
    "box": "cut out by their annotated boxes, else by a detector's, with the model's margin, unaligned",
    "photo": "given to the system as whole photographs",
    "boxes": "cut out by their annotated boxes, a framing of their own",
}

# Ways in which no face comes to the template.
UNALIGNED = frozenset({"box", "photo"})


def describe_faces(manifest: Mapping[str, Any]) -> str:
    """Describe how the faces of each dataset were aligned with the template."""
    faces = manifest.get("faces") or {}
    ways = [
        f"{escape_markdown(name)} {ALIGNMENT_NAMES.get(way, escape_markdown(way))}"
        for name, way in (faces.get("datasets") or {}).items()
    ]
    size, coverage = faces.get("size"), faces.get("coverage")
    if ways and set(faces["datasets"].values()) <= UNALIGNED:
        text, coverage = "The faces were not aligned", None
    else:
        text = "All faces were brought to one template"
    text += f", {size} × {size} pixels" if size else ""
    text += f", coverage {coverage:g} (1 is the framing of UTKFace's crops)" if coverage is not None else ""
    text += f", offset {faces['offset']:g} of the side" if faces.get("offset") else ""
    text += f", nothing shown outside {faces['visible']:g} times UTKFace's crop" if faces.get("visible") else ""
    found = (faces.get("detectors") or {}).items()
    by = "".join(f" Detector of {escape_markdown(name)}: {escape_markdown(each['name'])}." for name, each in found)
    return (f"{text}: {'; '.join(ways)}.{by}" if ways else f"{text}.{by}") + _bodies_in_words(faces)


def describe_limit(manifest: Mapping[str, Any]) -> str:
    """Return the warning of a run on a subset of its datasets (`--limit`); "" for a run on all images.

    Args:
        manifest: the content of manifest.json.
    """
    limit = manifest.get("limit")
    if not limit:
        return ""
    return (
        f"**Subset: `--limit` kept at most {format_count(limit)} images of each dataset, a random sample stratified by age band. "
        "These results are for trying things out: they are not comparable with results on all images, and are never ranked.**"
    )


def _bodies_in_words(faces: Mapping[str, Any]) -> str:
    """Describe how many rows of each dataset showed a body, where the model sees bodies."""
    words = [
        f" Of {escape_markdown(name)}, {format_count(each['body'])} of {format_count(each['rows'])} rows show a body"
        + (f", {format_count(each['body_alone'])} of them without a face." if each.get("body_alone") else ".")
        for name, each in (faces.get("bodies") or {}).items()
    ]
    return "".join(words)


def describe_samples_used(manifest: Mapping[str, Any]) -> list[str]:
    """The table of what was used, and a line of reasons for each dataset that lost images."""
    rows, reasons = [], []
    for name, found in (manifest.get("samples") or {}).items():
        dropped = found.get("quarantined") or {}
        keys = ("read", "train", "val", "test", "duplicates", "in_training_set")
        rows.append(
            [
                escape_markdown(name),
                *(format_count(found.get(key)) for key in keys),
                format_count(sum(dropped.values())),
            ]
        )
        if dropped:
            share = f" ({100 * sum(dropped.values()) / found['read']:.1f} %)" if found.get("read") else ""
            why = "; ".join(f"{format_count(n)} × {escape_markdown(reason)}" for reason, n in dropped.items())
            reasons.append(f"- {escape_markdown(name)}, {format_count(sum(dropped.values()))} images{share}: {why}")
        if found.get("straddling"):
            reasons.append(
                f"- {escape_markdown(name)}, {format_count(found['straddling'])} images of the official split, because a copy "
                "or the same person is in a later part"
            )
    headers = ["dataset", "read", "train", "val", "test", "exact copies", "in the training set too", "left out"]
    rule = (
        "Every test set was read once."
        if not manifest.get("train")
        else (
            "Exact copies or the images of one subject are on both sides of the split, as the protocol has it; "
            if leaks_of(_protocol(manifest))
            else "Exact copies and the images of one subject stay on one side of the split; "
        )
        + "test images of other sets that the training set holds too are left out. Every test set was read once, after training."
    )
    return [markdown_table(headers, rows), "\n".join(reasons) or "Nothing was left out.", rule]


def _protocol(manifest: Mapping[str, Any]) -> ProtocolSummary | None:
    protocol = manifest.get("protocol")
    return None if protocol is None else ProtocolSummary.model_validate(protocol)


def training_table(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Network, recipe, machine and time."""
    model, hardware, times = (manifest.get(key) or {} for key in ("model", "hardware", "timings"))
    recipe = config.get("train") or {}
    parameters = f", {model['parameters'] / 1e6:.1f} million parameters" if model.get("parameters") else ""
    machine = hardware.get("gpu") or f"{hardware.get('cpu') or 'a CPU'}, {hardware.get('cores') or DASH} cores"
    stages = {key.removesuffix("_s"): seconds for key, seconds in times.items() if key.endswith("_s")}
    speed = times.get("images_per_s")
    stages.pop("images_per", None)
    total = stages.pop("total", None)
    versions = {"agebench": manifest.get("agebench"), **(manifest.get("versions") or {})}
    facts = {
        "network": escape_markdown(model.get("backbone") or model.get("name") or DASH) + parameters,
        "head": ", ".join(
            filter(None, [escape_markdown(model.get("head") or DASH), settings(model.get("head_options") or {})])
        ),
        "beside age": settings(model.get("tasks") or {}),
        "started from": {"random": "random weights", None: DASH}.get(
            model.get("weights"), escape_markdown(model.get("weights"))
        ),
        "pre-training data": _describe_pretraining(manifest),
        "epochs": _epochs(manifest),
        "recipe": settings({key: value for key, value in recipe.items() if key not in ("augment", "epochs")}),
        "augmentation": settings({key: value for key, value in (recipe.get("augment") or {}).items() if value}),
        "seed": str(manifest.get("seed", DASH)),
        "machine": escape_markdown(machine) + (f"; {speed:,.0f} images/s in training" if speed else ""),
        "time": f"{format_duration(total)}: "
        + ", ".join(f"{escape_markdown(key)} {format_duration(stages[key])}" for key in stages),
        "versions": ", ".join(
            f"{escape_markdown(name)} {escape_markdown(version)}" for name, version in versions.items() if version
        ),
        "commit": escape_markdown(manifest.get("git") or DASH),
    }
    return markdown_table(
        ["", ""],
        [
            [key, value or DASH]
            for key, value in facts.items()
            if value or key not in ("beside age", "pre-training data")
        ],
        align=("left", "left"),
    )


def _describe_pretraining(manifest: Mapping[str, Any]) -> str:
    """Return the caveat about a backbone that was pre-trained on faces; "" without such pre-training.

    Args:
        manifest: the content of manifest.json.
    """
    data = (manifest.get("model") or {}).get("pretraining_data")
    if not data:
        return ""
    return (
        f"{escape_markdown(data)} (face recognition: more faces than the training set, without ages; their people, often "
        "celebrities, may also be in the test sets)"
    )


def _epochs(manifest: Mapping[str, Any]) -> str:
    epochs, folds = format_count(manifest.get("epochs")), (manifest.get("protocol") or {}).get("folds", 1)
    if folds > 1:
        return f"{epochs} in each of {folds} folds; of each, the weights with the lowest validation MAE answered"
    return f"{epochs}; lowest validation MAE in epoch {format_count(manifest.get('best_epoch'))}"
