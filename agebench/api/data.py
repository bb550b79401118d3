"""Datasets: list, load, profile and audit them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from agebench.data.dataset import Dataset as Dataset
from agebench.data.dataset import open_dataset
from agebench.errors import UserError
from agebench.registry.catalog import load_catalog

if TYPE_CHECKING:
    from agebench.analysis.eda.schema import ProfileFile
    from agebench.data.audit.report_model import AuditResult


@dataclass(frozen=True, eq=False)
class DatasetProfile:
    """The profile of one or more datasets.

    Attributes:
        summary: content of explore.json: counts, ages and groups of each dataset, and the comparisons.
        report: path of the report, report.html.
    """

    summary: "ProfileFile"
    report: Path

    def to_frame(self) -> pd.DataFrame:
        """Return one row a dataset: number of images, and the age quantiles in years."""
        rows = {name: {"n": entry.n, **entry.ages} for name, entry in self.summary.datasets.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("dataset")

    def _repr_html_(self) -> str:
        return self.to_frame().to_html()


@dataclass(frozen=True, eq=False)
class AuditReport:
    """The audit of a dataset.

    Attributes:
        result: duplicates, label conflicts, implausible ages and poor images, one table a kind.
        summary: number of findings by kind.
        report: path of the report, report.md.
    """

    result: "AuditResult"
    summary: dict[str, Any]
    report: Path

    def to_markdown(self) -> str:
        """Return the table of counts that `agebench data audit` prints."""
        from agebench.reports.audit import counts_text

        return counts_text(self.result)

    def _repr_html_(self) -> str:
        counts = {kind: count for kind, count in self.summary.items() if isinstance(count, int)}
        return pd.Series(counts, name="count").to_frame().to_html()


def list_datasets(*, registry: Iterable[str | Path] = ()) -> list[str]:
    """List the names of all dataset cards.

    Args:
        registry: further folders of cards.

    Returns:
        The names, sorted.

    Raises:
        UserError: a folder does not exist, or two cards have one name.

    Examples:
        >>> import agebench as ab
        >>> "fgnet" in ab.list_datasets()
        True
    """
    return load_catalog(map(Path, registry)).datasets.names()


def load_dataset(name: str, *, registry: Iterable[str | Path] = ()) -> Dataset:
    """Load a dataset that is on this machine.

    Args:
        name: name of the dataset's card.
        registry: further folders of cards.

    Returns:
        The dataset; its unreadable images are in `rejected`.

    Raises:
        UserError: no card of this name.
        DatasetNotFoundError: the dataset is not on this machine; the message names the command that gets it.

    Examples:
        >>> import agebench as ab
        >>> dataset = ab.load_dataset("synth-shift")
        >>> len(dataset), dataset.image(0).shape[2]
        (600, 3)
    """
    card = load_catalog(map(Path, registry)).datasets.get(name)
    return open_dataset(card)


def explore(
    *names: str, out: str | Path | None = None, seed: int = 0, registry: Iterable[str | Path] = ()
) -> DatasetProfile:
    """Profile datasets before training: labels, groups, splits and images; compare the first with each other one.

    Args:
        names: names of the datasets.
        out: folder of the report; None: explore/<names>.
        seed: seed of the split and of the random images.
        registry: further folders of cards.

    Returns:
        The profile: `summary`, `report`, `to_frame()`.

    Raises:
        UserError: a dataset is unknown or missing, or `out` holds other files.

    Examples:
        >>> import agebench as ab
        >>> ab.explore("synth-shift", out=folder).to_frame()["n"].item()
        600
    """
    from agebench.analysis.eda.report import write_profile
    from agebench.utils.io import check_folder

    if not names:
        raise UserError("explore: name at least one dataset.")
    if seed < 0:
        raise UserError(f"seed = {seed}: must be 0 or more.")
    datasets = load_catalog(map(Path, registry)).datasets
    cards = [datasets.get(name) for name in dict.fromkeys(names)]
    folder = Path(out) if out is not None else Path("explore") / "-".join(card.name for card in cards)
    check_folder(folder)
    return DatasetProfile(write_profile(folder, cards, seed=seed), folder / "report.html")


def audit(
    name: str,
    *,
    against: Sequence[str] = (),
    faces: int = 0,
    detector: str = "",
    out: str | Path | None = None,
    registry: Iterable[str | Path] = (),
) -> AuditReport:
    """Audit a dataset: duplicates, contradicting labels, implausible ages and poor images.

    Args:
        name: name of the dataset.
        against: names of further datasets in which duplicates are searched.
        faces: number of images in which faces are searched; 0: none, because it is slow.
        detector: name of the face detector; empty: the default one.
        out: folder of the report; None: audits/<name>.
        registry: further folders of cards.

    Returns:
        The audit: `result`, `summary`, `report`, `to_markdown()`.

    Raises:
        UserError: a dataset is unknown or missing, or an option is out of range.

    Examples:
        >>> import agebench as ab
        >>> ab.audit("synth-shift", out=folder).summary["unreadable"]
        0
    """
    from agebench.data.audit.run import run_audit
    from agebench.data.faces.detectors.base import open_detector
    from agebench.data.storage.locate import locate
    from agebench.reports.audit import audit_summary, write_audit
    from agebench.utils.io import check_folder

    if name in against:
        raise UserError(f"{name}: a dataset is always compared with itself. Name a different dataset, or none.")
    if faces < 0:
        raise UserError(f"faces = {faces}: must be 0 or more images.")
    datasets = load_catalog(map(Path, registry)).datasets
    cards = [datasets.get(each) for each in dict.fromkeys((name, *against))]
    folder = Path(out) if out is not None else Path("audits") / name
    check_folder(folder)
    for card in cards:  # a missing dataset fails before hours of work on the first
        locate(card)
    if detector:
        open_detector(detector)
    sources = [open_dataset(card) for card in cards]
    result = run_audit(sources[0], sources[1:], faces=faces, detector=detector)
    report = write_audit(folder, result, sources)
    return AuditReport(result, audit_summary(result), report)
