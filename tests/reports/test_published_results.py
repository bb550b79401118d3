"""What stands under reports/ holds together."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from agebench.leaderboard.gate_figure import gate_figure
from agebench.leaderboard.headline import Headline, short_table
from agebench.leaderboard.image_ranking import ImageRankings, build_rankings
from agebench.leaderboard.markdown import group_into_systems, leaderboard
from agebench.leaderboard.published_estimates import LocalDatasets, estimates_digest, read_estimates
from agebench.leaderboard.records import estimates_file, read_records
from agebench.leaderboard.schema import parse_record
from agebench.leaderboard.site import page
from agebench.leaderboard.systems import System
from agebench.leaderboard.verify import check_record
from agebench.registry.catalog import load_catalog
from agebench.reports.formatting import escape_markdown, format_ci, markdown_table

TESTS = ("utk", "fgnet", "all-age-faces")
REPORTS = Path(__file__).parents[2] / "reports"
RECORDS = read_records(REPORTS / "results") if (REPORTS / "results").is_dir() else {}
pytestmark = pytest.mark.skipif(not RECORDS, reason="no records stand under reports/results")


def test_every_record_holds() -> None:
    present = LocalDatasets(load_catalog())
    problems = {}
    for path, record in RECORDS.items():
        problems[path.name] = [*check_record(record), *present.unknown(parse_record(record).metrics.tests)]
        if path.stem != record.get("id"):
            problems[path.name].append("another name than its id")
    assert {name: found for name, found in problems.items() if found} == {}


def test_estimates_are_those_of_their_records_and_tell_no_label() -> None:
    for path, record in RECORDS.items():
        for test, digests in record["predictions"].items():
            file = estimates_file(path, test)
            if file.exists():
                table = read_estimates(file)
                assert set(table) <= {"key", "age_pred", "age_std"}, file
                assert estimates_digest(table) == digests["estimates_sha256"], file


def test_what_tells_images_apart_on_the_leaderboard_is_right_for_every_record() -> None:
    """The same fingerprint and numbers where, and only where, the estimates beside the records are of the same images."""
    pairs = set()
    files = {record["id"]: path for path, record in RECORDS.items()}
    for row in group_into_systems(map(parse_record, RECORDS.values())):
        for record in row.records:
            for test in record.metrics.tests:
                (told,) = System(row.name, row.train, (record,)).images(test)
                keys = pd.read_parquet(estimates_file(files[record.id], test), columns=["key"])["key"]
                pairs.add((test, told, hashlib.sha256(keys.sort_values().to_numpy().tobytes()).hexdigest()))
    assert len({told for _, told, _ in pairs}) == len({images for *_, images in pairs}) == len(pairs) == 9


def stored_rankings() -> ImageRankings:
    """The rankings beside the records, which are of these records' estimates: the datasets are not on this machine."""
    ranked = build_rankings(
        REPORTS / "results", group_into_systems(map(parse_record, RECORDS.values())), load_catalog()
    )
    assert not ranked.missing
    assert len(ranked.rankings) == 4
    return ranked


def test_the_leaderboard_is_made_of_the_records() -> None:
    made = leaderboard(
        group_into_systems(map(parse_record, RECORDS.values())),
        load_catalog().suites.get("published").published,
        stored_rankings(),
    )
    assert (REPORTS / "LEADERBOARD.md").read_text(encoding="utf-8") == made


def test_the_page_is_made_of_the_records() -> None:
    made = page(
        group_into_systems(map(parse_record, RECORDS.values())),
        load_catalog().suites.get("published").published,
        stored_rankings(),
    )
    assert (REPORTS / "site" / "index.html").read_text(encoding="utf-8") == made


def test_the_heads_page_shows_what_the_records_say() -> None:
    """Prints the table that belongs there."""
    rows = [
        row
        for row in group_into_systems(map(parse_record, RECORDS.values()))
        if row.train == "utk" and " frozen, " in row.name
    ]
    rows.sort(key=lambda row: row.metric("utk").value)
    cells = [[f"`{row.records[0].model.head}`", *map(format_ci, map(row.metric, TESTS))] for row in rows]
    table = markdown_table(
        ["head", "UTKFace", "FG-NET", "All-Age-Faces"], cells, align=["left", "right", "right", "right"]
    )
    print(table)
    assert table in (REPORTS.parent / "docs" / "how-to" / "heads.md").read_text(encoding="utf-8")


def test_the_readme_opens_with_what_the_records_say() -> None:
    """Prints the table and the sentence that belong there."""
    headline = Headline.from_systems(group_into_systems(map(parse_record, RECORDS.values())), stored_rankings())
    opening = f"{escape_markdown(headline.trust)}\n\n{short_table(headline)}"
    print(opening)
    assert opening in (REPORTS.parent / "README.md").read_text(encoding="utf-8")


def test_the_gate_figure_is_made_of_the_records() -> None:
    headline = Headline.from_systems(group_into_systems(map(parse_record, RECORDS.values())), stored_rankings())
    assert (REPORTS / "gates.svg").read_text(encoding="utf-8") == gate_figure(headline)
