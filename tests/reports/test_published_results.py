"""What stands under reports/ holds together."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from manual_site import load_tables

from agebench.leaderboard.gate_figure import gate_figure
from agebench.leaderboard.headline import Headline
from agebench.leaderboard.image_ranking import ImageRankings, build_rankings
from agebench.leaderboard.markdown import group_into_systems, leaderboard
from agebench.leaderboard.published_estimates import LocalDatasets, estimates_digest, read_estimates
from agebench.leaderboard.records import estimates_file, read_records
from agebench.leaderboard.schema import parse_record
from agebench.leaderboard.site import page
from agebench.leaderboard.systems import System
from agebench.leaderboard.verify import check_record
from agebench.registry.catalog import load_catalog
from agebench.utils.marked_text import replace_marked

REPORTS = Path(__file__).parents[2] / "reports"
CATALOG = cache(load_catalog)
Records = dict[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def records() -> Records:
    found = read_records(REPORTS / "results") if (REPORTS / "results").is_dir() else {}
    if not found:
        pytest.skip("no records are in reports/results")
    return found


@pytest.fixture(scope="module")
def systems(records: Records) -> list[System]:
    return group_into_systems(map(parse_record, records.values()))


@pytest.fixture(scope="module")
def stored_rankings(systems: list[System]) -> ImageRankings:
    """The rankings beside the records, which are of these records' estimates: the datasets are not on this machine."""
    ranked = build_rankings(REPORTS / "results", systems, CATALOG())
    assert not ranked.missing
    assert len(ranked.rankings) == 9
    return ranked


@pytest.fixture(scope="module")
def headline(systems: list[System], stored_rankings: ImageRankings) -> Headline:
    return Headline.from_systems(systems, stored_rankings)


def test_every_record_holds(records: Records) -> None:
    present = LocalDatasets(CATALOG())
    problems = {}
    for path, record in records.items():
        problems[path.name] = [*check_record(record), *present.unknown(parse_record(record).metrics.tests)]
        if path.stem != record.get("id"):
            problems[path.name].append("another name than its id")
    assert {name: found for name, found in problems.items() if found} == {}


def test_estimates_are_those_of_their_records_and_tell_no_label(records: Records) -> None:
    for path, record in records.items():
        for test, digests in record["predictions"].items():
            file = estimates_file(path, test)
            if file.exists():
                table = read_estimates(file)
                assert set(table) <= {"key", "age_pred", "age_std"}, file
                assert estimates_digest(table) == digests["estimates_sha256"], file


def test_what_tells_images_apart_on_the_leaderboard_is_right_for_every_record(
    records: Records, systems: list[System]
) -> None:
    """The same fingerprint and numbers where, and only where, the estimates beside the records are of the same images."""
    pairs = set()
    files = {record["id"]: path for path, record in records.items()}
    for row in systems:
        for record in row.records:
            for test in record.metrics.tests:
                (told,) = System(row.name, row.train, (record,)).images(test)
                keys = pd.read_parquet(estimates_file(files[record.id], test), columns=["key"])["key"]
                pairs.add((test, told, hashlib.sha256(keys.sort_values().to_numpy().tobytes()).hexdigest()))
    assert len({told for _, told, _ in pairs}) == len({images for *_, images in pairs}) == len(pairs) == 15


def test_the_leaderboard_is_made_of_the_records(systems: list[System], stored_rankings: ImageRankings) -> None:
    made = leaderboard(systems, CATALOG().suites.get("published").published, stored_rankings)
    assert (REPORTS / "LEADERBOARD.md").read_text(encoding="utf-8") == made


def test_the_page_is_made_of_the_records(systems: list[System], stored_rankings: ImageRankings) -> None:
    made = page(systems, CATALOG().suites.get("published").published, stored_rankings)
    assert (REPORTS / "site" / "index.html").read_text(encoding="utf-8") == made


def test_the_pages_with_tables_of_the_records_are_made_of_them(systems: list[System], headline: Headline) -> None:
    """`python docs/tables.py` writes them."""
    tables = load_tables()
    texts = {tables.README: tables.readme_opening(headline), tables.HEADS: tables.heads_tables(systems)}
    for written, text in texts.items():
        assert written.read_text(encoding="utf-8") == replace_marked(written, "records", text)


def test_the_gate_figure_is_made_of_the_records(headline: Headline) -> None:
    assert (REPORTS / "gates.svg").read_text(encoding="utf-8") == gate_figure(headline)
