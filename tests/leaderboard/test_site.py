"""The leaderboard's page: what a stranger's record can do to it, and that it works in a real browser."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import chromium_browser

from agebench.cli import main
from agebench.config.cards.suite import PublishedResult
from agebench.leaderboard import systems
from agebench.leaderboard.gate_rates import gate_rates_by_age
from agebench.leaderboard.image_ranking import ImageRankings
from agebench.leaderboard.records import content_hash
from agebench.leaderboard.scatter import count_cells
from agebench.leaderboard.schema import Record
from agebench.leaderboard.site import page, write_site
from agebench.leaderboard.systems import System
from agebench.metrics.evaluate import evaluate
from agebench.utils.io import write_json

EVIL = "</script><script>window.harmed = 1</script>|`x` <img src=x onerror='window.harmed=1'>"
CITED = PublishedResult(
    system=EVIL, train="utk", test="fgnet", value=4.4, note="[a](javascript:alert(1))", citation="javascript:alert(1) x"
)
SOURCE = PublishedResult(
    system="theirs", train="utk", test="utk", value=4.4, citation="Somebody 2020, https://example.org/a?b=1&c=2."
)


def group_into_systems(records: Iterable[dict[str, Any]]) -> list[System]:
    return systems.group_into_systems(map(Record.from_json, records))


def entry(error: float, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    age = rng.integers(5, 70, 160).astype(float)
    table = pd.DataFrame(
        {
            "sample_id": [f"image-{row}" for row in range(160)],
            "age": age,
            "age_pred": age + rng.normal(0, error, 160),
            "gender": rng.choice(["female", "male"], 160),
        }
    )
    return evaluate(table, groups=["gender"], resamples=100, seed=0).to_json() | {"baseline_mae": 15.0}


def record(head: str, error: float, seed: int, train: str | None = "utk", **model: Any) -> dict[str, Any]:
    content = {
        "schema": 1,
        "id": f"{train}-tiny-{head}-s{seed}",
        "config": {"seed": seed, "data": {"train": train}, "model": {"name": "tiny", "head": head}},
        "model": {"name": "tiny", "title": "Tiny", "head": head, "size": 64, "parameters": 90_000, **model},
        "timings": {"predict_s": error},
        "metrics": {
            "schema": 1,
            "train": train,
            "tests": {name: entry(error, seed + place) for place, name in enumerate(["utk", "fgnet"])},
        },
        "predictions": {},
    }
    return content | {"sha256": content_hash(content)}


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    heads = {"coral": 3.0, "regression": 6.0, "dldl": 9.0}
    made = [record(head, error, seed) for head, error in heads.items() for seed in (0, 1)]
    leaky = record("coral", 2.0, 5, "fgnet")
    leaky["metrics"]["protocol"] = {"name": "random", "leaks": {"duplicates": 3, "subjects": 0}}
    evil = record("drf", 12.0, 0, title=EVIL, weights=f"file {EVIL}", citation="javascript:alert(1)")
    return [*made, leaky, evil]


def test_nothing_of_a_record_or_a_citation_becomes_markup(records: list[dict[str, Any]]) -> None:
    html = page(group_into_systems(records), [CITED])
    assert html.count("<script") == 2  # the data and the program
    assert "<img" not in html
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert re.search(r'(src|href)="(?!#|data:)', html) is None


def test_the_command_writes_the_page(
    records: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in records[:2]:
        write_json(tmp_path / "results" / f"{one['id']}.json", one)
    words = ["leaderboard", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "page.md")]
    assert main([*words, "--site", str(tmp_path / "site")]) == 0
    assert str(tmp_path / "site" / "index.html") in capsys.readouterr().err
    assert "https://" not in page(group_into_systems(records[:2]))  # whatever it shows, it loads nothing


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with chromium_browser() as browser:
        yield browser


class Visit:
    """A page that was opened, and all that it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, **how: Any) -> None:
        self.page = browser.new_context(**how).new_page()
        self.page.set_default_timeout(10_000)
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.said.append(request.url) if "http" in request.url else None)
        self.page.goto(path.as_uri())

    def column(self, name: str) -> list[str]:
        place = self.page.locator("#table thead button").all_inner_texts().index(name)
        return [row.locator("th, td").nth(place).inner_text() for row in self.page.locator("#table tbody tr").all()]


@pytest.fixture(scope="module")
def site(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_site(tmp_path_factory.mktemp("site"), group_into_systems(records), [CITED, SOURCE])


def test_in_a_browser_it_sorts_filters_and_opens_a_run(chromium: Any, site: Path) -> None:
    visit = Visit(chromium, site)
    page = visit.page

    def sort(name: str) -> list[float]:
        page.get_by_role("button", name=name, exact=True).click()
        return [float(re.match(r"[\d.]+", cell)[0]) for cell in visit.column(name)]  # type: ignore[index]

    said = page.locator("#ranks p").all_inner_texts()
    assert said[1].startswith("These rankings hold on these test sets.")
    assert said[2].startswith("Without a rank")
    assert EVIL in said[2]
    assert visit.column("Rank (utk)") == ["–"] * 5

    rising = sort("MAE on fgnet")
    assert rising == sorted(rising)
    assert len(rising) == 5
    falling = sort("MAE on fgnet")
    assert falling == rising[::-1]
    assert page.locator("th[aria-sort=descending]").inner_text() == "MAE on fgnet"
    assert page.evaluate("document.activeElement.textContent") == "MAE on fgnet"  # the keyboard stays where it was
    assert sum("°‡" in cell for cell in visit.column("MAE on fgnet")) == 1

    page.get_by_label("hide systems with leakage").check()
    assert page.get_by_role("status").inner_text() == "4 of 5 systems"
    page.get_by_label("Find").fill("coral")
    assert page.get_by_role("status").inner_text() == "1 of 5 systems"
    page.get_by_label("Find").fill("")

    link = page.locator("#table tbody a", has_text="dldl")
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#run h2")
    assert page.evaluate("document.activeElement.textContent") == "Tiny, dldl, 64 px, trained on utk"
    assert "agebench reproduce reports/results/utk-tiny-dldl-s1.json" in page.locator("#run pre").first.inner_text()
    assert "female" in page.locator("#run").inner_text()
    page.get_by_role("link", name="all systems").click()
    page.wait_for_selector("#board", state="visible")

    assert page.locator("#table tbody tr", has_text="<script>").count() == 1
    page.locator("#table tbody a", has_text="<script>").click()
    page.locator(
        "#run", has_text="javascript:alert(1)"
    ).wait_for()  # the page of the run follows the address, an event later
    assert page.evaluate("window.harmed") is None
    addresses = page.eval_on_selector_all("a", "all => all.map(one => one.getAttribute('href'))")
    assert [address for address in addresses if not address.startswith("#")] == ["https://example.org/a?b=1&c=2"]
    assert visit.said == []


# Every element with words of its own: how much its colour stands out from what is behind it (WCAG 2, 1.4.3).
_CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => { const [r, g, b] = numbers(colour).map((value) => { value /= 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (node) => { for (; node; node = node.parentElement) { const colour = getComputedStyle(node).backgroundColor;
    const parts = numbers(colour); if (parts.length < 4 || parts[3] > 0) return colour; } return "rgb(255, 255, 255)"; };
  return [...document.querySelectorAll("body *")]
    .filter((node) => node.checkVisibility() && !node.closest("svg, script, [aria-hidden]")
      && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
    .map((node) => { const pair = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => a - b);
      return [(pair[1] + 0.05) / (pair[0] + 0.05), node.tagName + " " + node.className + " " + node.textContent.slice(0, 30)]; })
    .filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_and_a_phone_shows_it_without_scrolling_sideways(
    chromium: Any, site: Path, scheme: str
) -> None:
    visit = Visit(chromium, site, color_scheme=scheme, viewport={"width": 390, "height": 844})
    for click in (None, "#table tbody a"):
        if click:
            visit.page.locator(click).first.click()
        assert visit.page.evaluate(_CONTRAST) == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visit.said == []


def test_gate_view_follows_its_sliders_by_keyboard(
    chromium: Any, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    rows = group_into_systems(records[:4])
    rng = np.random.default_rng(0)
    age = rng.integers(3, 70, 800).astype(float)
    table = pd.DataFrame(
        {
            "sample_id": [f"image-{row}" for row in range(800)],
            "age": age,
            "age_pred": age + rng.normal(0, 6, 800),
            "gender": rng.choice(["female", "male"], 800),
        }
    )
    rates = gate_rates_by_age(table, ["gender"])
    gates = {(record.id, test): rates for row in rows for record in row.records for test in ("utk", "fgnet")}
    visit = Visit(chromium, write_site(tmp_path, rows, [], ImageRankings(gates=gates)))
    opened = visit.page

    def passing() -> float:
        cell = opened.locator("#gates tbody tr td").first.inner_text()
        return float(cell.split(" %")[0])

    first = passing()
    assert "Legal age 18, T = 25" in opened.locator("#gate-status").inner_text()
    opened.locator("#challenge").focus()
    for _ in range(4):
        opened.keyboard.press("ArrowRight")
    assert "T = 29" in opened.locator("#gate-status").inner_text()
    assert passing() < first
    opened.locator("#legal").focus()
    opened.keyboard.press("ArrowRight")
    assert "Legal age 21, T = 29" in opened.locator("#gate-status").inner_text()
    opened.select_option("#gate-groups", "gender")
    assert opened.locator("#gates tbody tr").count() == 2 * opened.locator("#gates tbody a").count()
    assert opened.locator("#stages tbody tr").count() == opened.locator("#gates tbody a").count()
    opened.locator("#gates tbody a").first.click()
    system = opened.locator("#run").inner_text()
    assert "Age gate at 18" in system
    assert (
        opened.locator("#run h3", has_text="Age gate").locator("xpath=following-sibling::*[1]//tbody/tr").count() >= 5
    )
    assert visit.said == []


def test_a_system_page_draws_estimates_against_true_ages(
    chromium: Any, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    rows = group_into_systems(records[:2])
    cells = count_cells(pd.DataFrame({"age": [10.0, 11.0, 40.0, 70.0], "age_pred": [11.0, 10.5, 44.0, 500.0]}))
    assert cells == [[3, 3, 2], [13, 14, 1], [23, 40, 1]]
    scatters = {(rows[0].records[0].id, "utk"): cells}
    visit = Visit(chromium, write_site(tmp_path, rows, [], ImageRankings(scatters=scatters)))
    visit.page.locator("#table tbody a").first.click()
    visit.page.wait_for_selector(".scatters svg")
    assert visit.page.locator(".scatters figure").count() == 1
    assert "utk, 4 images" in visit.page.locator(".scatters figcaption").inner_text()
    places = "".join(visit.page.eval_on_selector_all(".scatters .dot", "all => all.map(one => one.getAttribute('d'))"))
    assert places.count("M") == len(cells)
    assert visit.said == []
