"""The card of a run's repository: its figures in the hub's model-index form, and in words with their intervals."""

from pathlib import Path
from typing import Any

from agebench.errors import UserError
from agebench.registry.catalog import Catalog
from agebench.reports.formatting import (
    escape_markdown,
    format_ci,
    format_count,
    format_number,
)
from agebench.reports.sections.card_tables import MODEL_INDEX_METRICS, group_tables, overall_table
from agebench.runs.guarantees import calibrated_from
from agebench.utils.io import write_text


def model_card(card: dict[str, Any], repo: str, cards: Catalog) -> str:
    """The text of README.md, as huggingface_hub itself writes its head and reads it back.

    What the hub checks beyond that, it checks on its own machines, when something is sent.

    Args:
        card: what stands in card.json, see `agebench.export.card.build_card`.
        repo: OWNER/NAME.
        cards: of the datasets, for their titles.

    Raises:
        UserError: huggingface_hub refuses it, or reads other figures in it than were written.
    """
    from huggingface_hub import ModelCardData

    results = _results(card["figures"]["tests"], cards)
    data = ModelCardData(
        model_name=repo.split("/")[1],
        eval_results=results,
        license="other",
        license_name="training-data-terms",
        library_name="agebench",
        tags=["age-estimation", "face", "agebench"],
    )
    text = f"---\n{data.to_yaml()}\n---\n\n{_words(card, repo, cards)}"
    check_card(text, sorted(_said(one) for one in results))
    return text


def check_card(text: str, wanted: list[tuple[str, ...]] | None = None) -> None:
    """What huggingface_hub itself can check without the network: that it reads the head, and these results in it.

    Raises:
        UserError: it does not; the message says which.
    """
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        data: Any = ModelCard(text, ignore_metadata_errors=False).data
        read = sorted(_said(one) for one in data.eval_results or [])
    except (ValueError, KeyError, TypeError, YAMLError) as error:  # its own, and those of what it reads YAML with
        raise UserError(f"README.md: huggingface_hub refuses the card: {error}") from error
    if wanted is not None and read != wanted:
        other = next(iter(set(map(str, read)) ^ set(map(str, wanted))), "one of them twice")
        raise UserError(f"README.md: huggingface_hub reads other figures in the card than were written: {other}")


def save_card(file: Path, text: str) -> None:
    """Write it, and read it once more from the file."""
    write_text(file, text)
    check_card(file.read_text(encoding="utf-8"))


def _results(tests: dict[str, Any], cards: Catalog) -> list[Any]:
    from huggingface_hub import EvalResult

    found = []
    for name, test in tests.items():
        for figure, (title, _) in MODEL_INDEX_METRICS.items():
            known = test["overall"].get(figure) or {}
            if known.get("value") is None:
                continue
            ends = [known.get(end) for end in ("low", "high")]
            between = f", 95 % interval {ends[0]:.3f} to {ends[1]:.3f}" if None not in ends else ""
            found.append(
                EvalResult(
                    task_type="image-classification",  # the hub has no task of its own for regression on images
                    task_name="Facial age estimation",
                    dataset_type=name,
                    dataset_name=_title(name, cards),
                    dataset_split="test",
                    metric_type=figure,
                    metric_name=f"{title}, n = {test['n']}{between}",
                    metric_value=round(known["value"], 4),
                )
            )
    return found


def _said(result: Any) -> tuple[str, ...]:
    """What of a result has to come back."""
    return (result.dataset_type, result.metric_type, str(result.metric_name), f"{float(result.metric_value):.4f}")


def _title(name: str, cards: Catalog) -> str:
    return cards.datasets.get(name).title if name in cards.datasets.names() else name


def _words(card: dict[str, Any], repo: str, cards: Catalog) -> str:
    model, training, tests = card["model"], card["training"], card["figures"]["tests"]
    parts = [
        f"# {repo.split('/')[1]}",
        f"Estimates ages from faces: {escape_markdown(model.get('title') or model['name'])} with the head "
        f"`{escape_markdown(model['head'])}`, "
        f"{model['size']} pixels, trained by agebench on {escape_markdown(training['title'])}.",
        _use(repo),
        "## How good it is\n\nOn images that it was neither trained nor chosen on; in brackets 95 % bootstrap intervals.",
        overall_table(tests, training["dataset"]),
        *group_tables(tests, training["dataset"]),
        *_promised(card.get("promises", {}).get("intervals", {})),
        "## What it is for\n\n" + escape_markdown(card["intended_use"]),
        "## Training data and licence\n\n" + escape_markdown(card["licence"]) + _cited(training),
        "## What it wants to see\n\n" + escape_markdown(card["input"]["text"]),
    ]
    return "\n\n".join(parts) + "\n"


def _use(repo: str) -> str:
    return (
        f'```python\nimport agebench\n\nmodel = agebench.load("hf://{repo}@COMMIT")  # the commit that you trust, 40 digits\n'
        'print(model.predict(["photo.jpg"]))\n```'
    )


def _promised(intervals: dict[str, Any]) -> list[str]:
    if "0.9" not in intervals:
        return []
    of = intervals["0.9"]
    unit = "of the model's own standard deviations" if of["scaled"] else "years"
    held = "; ".join(
        f"{format_ci(found, digits=1, percent=True)} of {format_count(found['n'])} in {escape_markdown(name)}"
        for name, found in of["coverage"].items()
    )
    return [
        "## What an interval is worth",
        f"Estimate ± {format_number(of['radius'])} {unit} is made to hold 90 % of true ages among faces like those of "
        f"{escape_markdown(of['calibrated_on'])}, {calibrated_from(of)}. Measured: {held}.",
    ]


def _cited(training: dict[str, Any]) -> str:
    return f"\n\nTraining data: {escape_markdown(training['citation'])}" if training.get("citation") else ""
