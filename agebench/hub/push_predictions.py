"""Publish the estimates of a run or test as a dataset repository of the Hugging Face hub, without labels and file names."""

from pathlib import Path

from agebench.errors import UserError
from agebench.hub.push import README, WRITTEN, check_out, claim, open_finished_run, release
from agebench.leaderboard.published_estimates import estimates_of, write_estimates
from agebench.metrics.schema import TestResult
from agebench.registry.catalog import Catalog
from agebench.reports.formatting import escape_markdown, format_ci, format_count
from agebench.utils.io import write_text


def write_predictions_repository(run: Path, repo: str, out: Path, cards: Catalog) -> list[str]:
    """Write the folder of a dataset repository: a Parquet file for each test set, and a card that loads them.

    A row has `key`, a pseudonym that only an owner of the image can compute, `age_pred`, years, and `age_std` where the model
    states it. Test sets whose card does not allow it (`estimates_public`) are left out.

    Args:
        run: the folder of a finished run or test.
        repo: OWNER/NAME.
        out: the folder to write.
        cards: the registered cards.

    Returns:
        The names of the files.

    Raises:
        UserError: the run is not finished, no card allows it, `repo` is invalid, or `out` holds other files.
    """
    folder = open_finished_run(run, repo)
    check_out(out)
    tests = folder.metrics_file().tests
    public = [name for name in tests if name in cards.datasets.names() and cards.datasets.get(name).estimates_public]
    tables = {name: table for name in public if (table := estimates_of(run, name)) is not None}
    if not tables:
        raise UserError(
            f"{run}: no estimates can be published: the cards of {', '.join(tests)} do not allow it (`estimates_public`), or the "
            "run did not keep its samples"
        )
    names = sorted([*map(_file, tables), README, WRITTEN])
    stale = claim(out, names)
    for name, table in tables.items():
        write_estimates(out / _file(name), table)
    model = folder.manifest().get("model") or {}
    title = str(model.get("title") or model.get("name") or run.name)
    write_text(out / README, _card(title, repo, {name: tests[name] for name in tables}, cards))
    release(out, names, stale)
    return names


def _file(test: str) -> str:
    return f"data/{test}.parquet"


def _card(title: str, repo: str, tests: dict[str, TestResult], cards: Catalog) -> str:
    """Return the text of README.md; its header names a configuration for each test set."""
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        pretty_name=f"Ages estimated by {title}",
        license="other",
        license_name="terms-of-the-test-sets",
        tags=["age-estimation", "face", "agebench"],
        configs=[{"config_name": name, "data_files": _file(name)} for name in tests],
    )
    rows = [
        f"| `{name}` | {escape_markdown(cards.datasets.get(name).title)} | {format_count(test.n)} | "
        f"{format_ci(test.overall['mae'])} | {escape_markdown(cards.datasets.get(name).licence)} |"
        for name, test in tests.items()
    ]
    return (
        f"""---
{data.to_yaml()}
---

# Ages estimated by {escape_markdown(title)}

Made by [agebench](https://pypi.org/project/agebench/). One row for each test image:

- `key`: a pseudonym of the image, by its name in agebench and the digest of its file. An owner of the images can compute it
  (`agebench.leaderboard.published_estimates.pseudonym_keys`); labels and file names are not published.
- `age_pred`: the estimated age, years; `age_std`, where the model states it: its standard deviation.

```python
import datasets

estimates = datasets.load_dataset("{repo}", "{next(iter(tests))}", split="train")
```

| configuration | test set | images | MAE (years) | terms of the test set |
|---|---|---:|---:|---|
"""
        + "\n".join(rows)
        + "\n"
    )
