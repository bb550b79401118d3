"""Write the tables of the manual that are made of the records: the README's opening, and the heads' page.

    python docs/tables.py

Each stands between two comments of its page, `<!-- records: begin -->` and `<!-- records: end -->`. Reads the rankings that
`agebench leaderboard` has stored beside the records.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from agebench.leaderboard.headline import Headline, short_table
from agebench.leaderboard.image_ranking import build_rankings
from agebench.leaderboard.markdown import group_into_systems
from agebench.leaderboard.systems import System
from agebench.leaderboard.verify import read_valid_records
from agebench.registry.catalog import load_catalog
from agebench.reports.formatting import escape_markdown, format_ci, markdown_table
from agebench.utils.marked_text import replace_marked

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "reports" / "results"
README = ROOT / "README.md"
HEADS = ROOT / "docs" / "how-to" / "heads.md"
# Training set, ending of the systems' names before the head, and the text above their table.
HEADS_TABLES = (
    ("utk", "(?<! layers) frozen", "Trained on 16,120 images of UTKFace:"),
    ("fgnet", "(?<! layers) frozen", "Trained on about 680 images of FG-NET:"),
    (
        "utk",
        ", first 13 layers frozen",
        "Trained on UTKFace, two epochs: the head alone, then with the last four of the backbone's 17 layers:",
    ),
)
HEADS_TESTS = {"utk": "UTKFace", "fgnet": "FG-NET", "all-age-faces": "All-Age-Faces"}


def readme_opening(headline: Headline) -> str:
    """Return whether a system may be trusted with an age gate, and the short table of systems."""
    return f"{escape_markdown(headline.trust)}\n\n{short_table(headline)}"


def heads_tables(systems: Sequence[System]) -> str:
    """Return the errors of the heads: on frozen features, one table for each training set, then with layers that are trained."""
    tables = []
    for train, part, title in HEADS_TABLES:
        rows = [row for row in systems if row.train == train and re.search(rf"{part}, \S+, 112 px$", row.name)]
        rows.sort(key=lambda row: row.metric(train).value or math.inf)
        known = {test for row in rows for test in row.tests}
        tests = {
            test: HEADS_TESTS[test]
            for test in (train, *(test for test in HEADS_TESTS if test != train))
            if test in known
        }
        cells = [[f"`{row.records[0].model.head}`", *(format_ci(row.metric(test)) for test in tests)] for row in rows]
        if rows:
            tables += [title, markdown_table(["head", *tests.values()], cells, align=["left", *["right"] * len(tests)])]
    return "\n\n".join(tables)


def pages() -> dict[Path, str]:
    """Return each page as the records have it."""
    systems = group_into_systems(read_valid_records(RESULTS).values())
    rankings = build_rankings(RESULTS, systems, load_catalog())
    return {
        README: replace_marked(README, "records", readme_opening(Headline.from_systems(systems, rankings))),
        HEADS: replace_marked(HEADS, "records", heads_tables(systems)),
    }


def main() -> None:
    """Write the pages."""
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
        print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
