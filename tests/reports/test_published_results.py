"""What stands under reports/ holds together."""

from pathlib import Path

import pytest

from agebench.registry.catalogue import catalogue
from agebench.reports.estimates import Present, estimates_digest, read_estimates
from agebench.reports.leaderboard import leaderboard
from agebench.reports.results import check_record, estimates_file, read_records

REPORTS = Path(__file__).parents[2] / "reports"
RECORDS = read_records(REPORTS / "results") if (REPORTS / "results").is_dir() else {}
pytestmark = pytest.mark.skipif(not RECORDS, reason="no records stand under reports/results")


def test_every_record_holds() -> None:
    present = Present(catalogue())
    problems = {
        path.name: [*check_record(record), *present.unknown(record)]
        for path, record in RECORDS.items()
        if path.stem != record.get("id") or [*check_record(record), *present.unknown(record)]
    }
    assert problems == {}


def test_estimates_are_those_of_their_records_and_tell_no_label() -> None:
    for path, record in RECORDS.items():
        for test, digests in record["predictions"].items():
            file = estimates_file(path, test)
            if file.exists():
                table = read_estimates(file)
                assert set(table) <= {"key", "age_pred", "age_std"}, file
                assert estimates_digest(table) == digests["estimates_sha256"], file


def test_the_leaderboard_is_made_of_the_records() -> None:
    made = leaderboard(RECORDS.values(), catalogue().suites.get("published").published)
    assert (REPORTS / "LEADERBOARD.md").read_text(encoding="utf-8") == made
