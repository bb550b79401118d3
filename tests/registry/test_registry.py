import json
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from agebench.errors import UserError
from agebench.registry import registry as plugins
from agebench.registry.catalog import load_catalog
from agebench.registry.registry import Registry
from agebench.utils.text import did_you_mean


def test_a_decorator_registers() -> None:
    registry: Registry[type] = Registry("head")

    @registry.register("mine")
    class Mine:
        pass

    assert registry.get("mine") is Mine
    assert registry.names() == ["mine"]


def test_a_lazy_target_is_imported_on_first_use() -> None:
    registry: Registry[object] = Registry("thing")
    registry.register("decoder", "json:JSONDecoder")
    assert registry.names() == ["decoder"]
    assert registry.get("decoder").__name__ == "JSONDecoder"  # type: ignore[attr-defined]


def test_thread_that_asks_while_another_loads_gets_the_item() -> None:
    loading, asked = threading.Event(), threading.Event()

    def check(name: str, item: object) -> str:
        loading.set()
        asked.wait()
        return ""

    def ask_late() -> object:
        loading.wait()
        asked.set()
        return registry.get("decoder")

    registry: Registry[object] = Registry("thing", check=check)
    registry.register("decoder", "json:JSONDecoder")
    with ThreadPoolExecutor(2) as pool:
        late, early = pool.submit(ask_late), pool.submit(registry.get, "decoder")
    assert early.result() is late.result() is json.JSONDecoder


def test_interrupted_look_up_is_repeated_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = []

    def interrupt_first(step: str) -> None:
        if step not in interrupted:
            interrupted.append(step)
            raise KeyboardInterrupt

    def points(group: str) -> list[EntryPoint]:
        interrupt_first("entry points")
        return [EntryPoint("decoder", "json:JSONDecoder", group)]

    def check(name: str, item: object) -> str:
        interrupt_first("import")
        return ""

    monkeypatch.setattr(plugins, "entry_points", points)
    registry: Registry[object] = Registry("thing", group="things", check=check)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            registry.get("decoder")
    assert interrupted == ["entry points", "import"]
    assert registry.names() == ["decoder"]
    assert registry.get("decoder") is json.JSONDecoder


def test_an_unknown_name_offers_the_closest() -> None:
    registry: Registry[int] = Registry("dataset")
    registry.register("fgnet", 1)
    registry.register("utk", 2)
    with pytest.raises(UserError, match="no dataset called 'fg-net'; did you mean 'fgnet'"):
        registry.get("fg-net")
    with pytest.raises(UserError, match="there are: fgnet, utk"):
        registry.get("zzz")


def test_one_name_twice_names_both_origins() -> None:
    registry: Registry[int] = Registry("dataset")
    registry.register("utk", 1, origin="a/utk.toml")
    with pytest.raises(UserError, match=r"a/utk\.toml and b/other\.toml"):
        registry.register("utk", 2, origin="b/other.toml")


def test_a_broken_plugin_takes_nothing_down(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("broken", "no_such_module_anywhere:Thing", "agebench.heads"),
        EntryPoint("fine", "json:JSONDecoder", "agebench.heads"),
        EntryPoint("mine", "json:JSONEncoder", "agebench.heads"),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    registry: Registry[object] = Registry("head", group="agebench.heads")
    registry.register("mine", 7, origin="this test")
    broken = registry.broken()
    assert "No module named 'no_such_module_anywhere'" in broken["broken"]
    assert "its name is taken by this test" in broken["mine (json:JSONEncoder)"]
    assert registry.names() == ["fine", "mine"]
    with pytest.raises(UserError, match=r"head 'broken' is broken: .*no_such_module_anywhere"):
        registry.get("broken")


def test_an_unknown_name_among_very_many_does_not_print_them_all() -> None:
    images = [f"{number:05}" for number in range(24_000)]
    assert did_you_mean("cat", images).endswith("00098, 00099 and 23,900 more")
    assert did_you_mean("cat", images[:3]) == "; there are: 00000, 00001, 00002"
    assert did_you_mean("cat", []) == "; there are none"


PLUGINS = """
import sys
from agebench.config.cards.dataset import DatasetCard

class Sly(Exception):
    def __str__(self):
        raise ValueError("no")

def __getattr__(name):
    if name == "ends":
        sys.exit(3)
    if name == "sly":
        raise Sly
    if name == "stops":
        raise GeneratorExit
    print("from a plugin")
    return {
        "table": {"name": "table"},
        "nothing": None,
        "card": DatasetCard(name="card", title="", reader="csv", licence="x"),
        "renamed": DatasetCard(name="other", title="", reader="csv", licence="x"),
    }[name]
"""


def test_unusable_plugins_are_broken_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sly_plugin.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("ends", "sly", "stops", "table", "nothing", "renamed", "card", "absent")
    points = [EntryPoint(name, f"sly_plugin:{name}", "agebench.datasets") for name in names]
    points.append(EntryPoint("garbled", "no reference", "agebench.datasets"))
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point for point in points if point.group == group])
    datasets = load_catalog().datasets
    broken = datasets.broken()
    assert "ends the program while it is loaded (SystemExit: 3)" in broken["ends"]
    assert "hands over dict, where a DatasetCard is required" in broken["table"]
    assert "hands over NoneType" in broken["nothing"]
    assert "its card is called 'other'" in broken["renamed"]
    assert set(broken) == {*names, "garbled"} - {"card"}
    assert {"card", "utk"} <= set(datasets.names())
    assert capsys.readouterr().out == ""


def test_damaged_metadata_of_one_package_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        def __init__(self, points: list[EntryPoint] | None) -> None:
            self.points = points

        @property
        def entry_points(self) -> EntryPoints:
            if self.points is None:
                raise ValueError("damaged")
            return EntryPoints(self.points)

    def damaged(group: str) -> None:
        raise ValueError("damaged")

    monkeypatch.setattr(plugins, "entry_points", damaged)
    point = EntryPoint("fine", "json:JSONDecoder", "agebench.heads")
    monkeypatch.setattr(plugins, "distributions", lambda: [Package(None), Package([point])])
    registry: Registry[object] = Registry("head", group="agebench.heads")
    assert registry.names() == ["fine"]


@pytest.mark.parametrize("name", [1.5, ["utk"], {}, None, True])
def test_a_name_that_is_no_text_is_refused(name: object) -> None:
    registry: Registry[int] = Registry("model")
    with pytest.raises(UserError, match=r"^model = .*: a name is required, as text"):
        registry.get(name)  # type: ignore[arg-type]


def test_file_of_a_card_is_answered_with_where_it_goes() -> None:
    cards: Registry[str] = Registry("model")
    cards.register("theirs", "card")
    with pytest.raises(UserError, match=r"by its file: put the file into models/ of a folder, .* --registry DIR"):
        cards.get("theirs.toml")
