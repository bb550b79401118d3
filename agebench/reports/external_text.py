"""What the report of an external model says that no report of a trained one does."""

from collections.abc import Mapping
from typing import Any

from agebench.reports.tables import DASH, duration, escaped, listed, markdown_table, with_interval


def external_in_words(metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The first paragraphs: what was tested on what, and whether it can have seen these faces before."""
    model, tests = manifest.get("model") or {}, metrics["tests"]
    errors = [
        f"{with_interval((test.get('overall') or {}).get('mae') or {})} years on {escaped(name)}"
        for name, test in tests.items()
    ]
    title = escaped(model.get("title") or model.get("name") or "A model")
    opening = (
        f"**{title}**, as it is: nothing was trained here, and every usable image of {listed([escaped(n) for n in tests])} "
        f"was asked for. It is on average off by **{listed(errors)}**."
    )
    return "\n\n".join(filter(None, [opening, _contamination(metrics)]))


def _contamination(metrics: Mapping[str, Any]) -> str:
    where: dict[str, list[str]] = {}
    for name, test in metrics["tests"].items():
        where.setdefault(test.get("contamination") or "", []).append(escaped(name))
    words = []
    if "known" in where:
        words.append(
            f"**Contaminated: it was trained on images of {listed(where['known'])}**, by its own card. "
            "The figures there are no test and must not stand beside those of models that had not seen them."
        )
    if "unknown" in where:
        words.append(
            f"**Is it contaminated? What it was trained on is not known**, so it may have seen images or people of "
            f"{listed(where['unknown'])}. Read the figures there as the best that can be the case, not as those on unseen faces; "
            "an error far below that of models known not to have seen them is a reason to ask, not to praise."
        )
    if "none stated" in where:
        words.append(
            f"By its card it was not trained on {listed(where['none stated'])}; agebench has no way to check that."
        )
    return " ".join(words)


def external_table(manifest: Mapping[str, Any]) -> str:
    """What was called, under which terms, on which machine."""
    model, hardware, times = (manifest.get(key) or {} for key in ("model", "hardware", "timings"))
    machine = hardware.get("gpu") or f"{hardware.get('cpu') or 'a CPU'}, {hardware.get('cores') or DASH} cores"
    stages = [f"{key.removesuffix('_s')} {duration(value)}" for key, value in times.items() if key != "total_s"]
    versions = {"agebench": manifest.get("agebench"), **(manifest.get("versions") or {})}
    digest = model.get("file_sha256")
    facts = {
        "form": escaped(model.get("format") or DASH),
        "source": escaped(model.get("source") or DASH) + (f" (SHA-256 {digest}…)" if digest else ""),
        "trained on": escaped(model.get("training_data") or DASH),
        "licence": escaped(model.get("licence") or DASH),
        "citation": escaped(model.get("citation") or DASH),
        "machine": escaped(machine),
        "time": f"{duration(times.get('total_s'))}: " + ", ".join(stages),
        "versions": ", ".join(f"{escaped(name)} {escaped(version)}" for name, version in versions.items() if version),
        "commit": escaped(manifest.get("git") or DASH),
    }
    return markdown_table(["", ""], [[key, value] for key, value in facts.items()], align=("left", "left"))
