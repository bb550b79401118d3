"""The provenance of a run, in words and tables: faces, what was used and left out, training and machine."""

from agebench.config.toml_io import Settings
from agebench.reports.formatting import (
    DASH,
    escape_markdown,
    format_count,
    format_duration,
    markdown_table,
    settings,
)
from agebench.reports.manifest import FacesEntry, RunManifest
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


def describe_faces(manifest: RunManifest) -> str:
    """Describe how the faces of each dataset were aligned with the template."""
    faces = manifest.faces
    ways = [
        f"{escape_markdown(name)} {ALIGNMENT_NAMES.get(way, escape_markdown(way))}"
        for name, way in faces.datasets.items()
    ]
    size, coverage = faces.size, faces.coverage
    if ways and set(faces.datasets.values()) <= UNALIGNED:
        text, coverage = "The faces were not aligned", None
    else:
        text = "All faces were brought to one template"
    text += f", {size} × {size} pixels" if size else ""
    text += f", coverage {coverage:g} (1 is the framing of UTKFace's crops)" if coverage is not None else ""
    text += f", offset {faces.offset:g} of the side" if faces.offset else ""
    text += f", nothing shown outside {faces.visible:g} times UTKFace's crop" if faces.visible else ""
    by = "".join(
        f" Detector of {escape_markdown(name)}: {escape_markdown(detector.name)}."
        for name, detector in faces.detectors.items()
    )
    return (f"{text}: {'; '.join(ways)}.{by}" if ways else f"{text}.{by}") + _bodies_in_words(faces)


def describe_limit(manifest: RunManifest) -> str:
    """Return the warning of a run on a subset of its datasets (`--limit`); "" for a run on all images.

    Args:
        manifest: the content of manifest.json.
    """
    if not manifest.limit:
        return ""
    return (
        f"**Subset:** `--limit` kept at most {format_count(manifest.limit)} images of each dataset, a random sample stratified by "
        "age band. **These results are for trying things out: they are not comparable with results on all images, and are never "
        "ranked.**"
    )


def _bodies_in_words(faces: FacesEntry) -> str:
    """Describe how many rows of each dataset showed a body, where the model sees bodies."""
    words = [
        f" Of {escape_markdown(name)}, {format_count(counts.body)} of {format_count(counts.rows)} rows show a body"
        + (f", {format_count(counts.body_alone)} of them without a face." if counts.body_alone else ".")
        for name, counts in faces.bodies.items()
    ]
    return "".join(words)


def describe_samples_used(manifest: RunManifest) -> list[str]:
    """Render the table of used images, and a line of reasons for each dataset that lost images."""
    rows, reasons = [], []
    for name, samples in manifest.samples.items():
        dropped = samples.quarantined
        counts = [*samples.counts, sum(dropped.values())]
        rows.append([escape_markdown(name), *(format_count(count) for count in counts)])
        if dropped:
            share = f" ({100 * sum(dropped.values()) / samples.read:.1f} %)" if samples.read else ""
            why = "; ".join(f"{format_count(n)} × {escape_markdown(reason)}" for reason, n in dropped.items())
            reasons.append(f"- {escape_markdown(name)}, {format_count(sum(dropped.values()))} images{share}: {why}")
        if samples.straddling:
            reasons.append(
                f"- {escape_markdown(name)}, {format_count(samples.straddling)} images of the official split, because a copy "
                "or the same person is in a later part"
            )
    headers = ["dataset", "read", "train", "val", "test", "exact copies", "in the training set too", "left out"]
    rule = (
        "Every test set was read once."
        if manifest.train is None
        else (
            "Exact copies or the images of one subject are on both sides of the split, as the protocol has it; "
            if leaks_of(manifest.protocol)
            else "Exact copies and the images of one subject stay on one side of the split; "
        )
        + "test images of other sets that the training set holds too are left out. Every test set was read once, after training."
    )
    return [markdown_table(headers, rows), "\n".join(reasons) or "Nothing was left out.", rule]


def training_table(manifest: RunManifest, config: Settings) -> str:
    """Render network, recipe, machine and time as a table."""
    model, times = manifest.model, manifest.timings
    recipe = config.get("train") or {}
    parameters = f", {model.parameters / 1e6:.1f} million parameters" if model.parameters else ""
    stages = {key.removesuffix("_s"): seconds for key, seconds in times.items() if key.endswith("_s")}
    speed = times.get("images_per_s")
    stages.pop("images_per", None)
    total = stages.pop("total", None)
    facts = {
        "network": escape_markdown(model.backbone or model.name or DASH) + parameters,
        "head": ", ".join(filter(None, [escape_markdown(model.head or DASH), settings(model.head_options)])),
        "beside age": settings(model.tasks),
        "started from": {"random": "random weights", None: DASH}.get(model.weights, escape_markdown(model.weights)),
        "pre-training data": _describe_pretraining(manifest),
        "epochs": _epochs(manifest),
        "recipe": settings({key: value for key, value in recipe.items() if key not in ("augment", "epochs")}),
        "augmentation": settings({key: value for key, value in (recipe.get("augment") or {}).items() if value}),
        "seed": str(DASH if manifest.seed is None else manifest.seed),
        "machine": escape_markdown(manifest.machine) + (f"; {speed:,.0f} images/s in training" if speed else ""),
        "time": f"{format_duration(total)}: "
        + ", ".join(f"{escape_markdown(key)} {format_duration(stages[key])}" for key in stages),
        "versions": ", ".join(
            f"{escape_markdown(name)} {escape_markdown(version)}" for name, version in manifest.all_versions.items()
        ),
        "commit": escape_markdown(manifest.git or DASH),
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


def _describe_pretraining(manifest: RunManifest) -> str:
    """Return the caveat about a backbone that was pre-trained on faces; "" without such pre-training.

    Args:
        manifest: the content of manifest.json.
    """
    data = manifest.model.pretraining_data
    if not data:
        return ""
    return (
        f"{escape_markdown(data)} (face recognition: more faces than the training set, without ages; their people, often "
        "celebrities, may also be in the test sets)"
    )


def _epochs(manifest: RunManifest) -> str:
    epochs, folds = format_count(manifest.epochs), manifest.protocol.folds if manifest.protocol else 1
    if folds is not None and folds > 1:
        return f"{epochs} in each of {folds} folds; of each, the weights with the lowest validation MAE answered"
    return f"{epochs}; lowest validation MAE in epoch {format_count(manifest.best_epoch)}"
