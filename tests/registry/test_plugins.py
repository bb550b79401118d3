from importlib.metadata import EntryPoint

import pytest

from agebench.errors import UserError
from agebench.registry import plugins
from agebench.registry.plugins import Registry, suggest


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
    assert suggest("cat", images).endswith("00098, 00099 and 23,900 more")
    assert suggest("cat", images[:3]) == "; there are: 00000, 00001, 00002"
    assert suggest("cat", []) == "; there are none"
