from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agebench.config.options import RunOptions
from agebench.config.toml_io import deep_merge, parse_setting, read_settings
from agebench.errors import UserError
from agebench.registry.catalog import load_catalog
from agebench.runs.resolve import resolve_config, resolve_external

CARDS = load_catalog()
DATA = {"data": {"train": "utk", "test": ["fgnet"]}}


def test_the_models_card_gives_the_rest() -> None:
    config = resolve_config(CARDS, [DATA])
    card = CARDS.models.get("mobilefacenet")
    assert config.model == card.architecture
    assert config.train == card.train
    assert config.pretrained == "auto"


def test_later_layers_win() -> None:
    layers = [
        DATA,
        {"train": {"lr": 0.5, "epochs": 7}},
        {"train": {"epochs": 9}},
        parse_setting("train.augment.flip=0"),
    ]
    config = resolve_config(CARDS, layers)
    assert (config.train.lr, config.train.epochs, config.train.augment.flip) == (0.5, 9, 0)


def test_the_written_config_repeats_the_run(tmp_path: Path) -> None:
    config = resolve_config(CARDS, [DATA, {"seed": 3, "model": {"name": "tiny", "head_options": {"loss": "l2"}}}])
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert resolve_config(CARDS, [read_settings(path)]) == config


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [("train", "layer_decay", 1.0), ("train", "head_epochs", 0), ("faces", "offset", 0.0), ("faces", "visible", 0.0)],
)
def test_written_config_keeps_what_the_card_would_turn_on(table: str, key: str, value: float, tmp_path: Path) -> None:
    """A setting that is off is not written; the card, which has it on, does not return when the run is repeated."""
    model = DATA | {"model": {"name": "mobilefacenet"}}
    config = resolve_config(CARDS, [model, {table: {key: value}}])
    assert getattr(getattr(config, table), key) == value
    assert getattr(getattr(resolve_config(CARDS, [model]), table), key) != value
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert resolve_config(CARDS, [read_settings(path)]) == config


def test_written_config_of_a_test_keeps_an_offset_that_is_off(tmp_path: Path) -> None:
    card = CARDS.models.get("wide-resnet")
    framed = card.model_copy(update={"input": card.input.model_copy(update={"offset": 0.1, "visible": 1.0})})
    layers = [{"data": {"test": ["fgnet"]}, "model": framed.model_dump(mode="json")}]
    assert resolve_external(CARDS, layers).faces.offset == 0.1
    config = resolve_external(CARDS, [*layers, {"faces": {"offset": 0.0, "visible": 0.0}}])
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    again = resolve_external(CARDS, [read_settings(path)])
    assert (again.faces.offset, again.faces.visible) == (0.0, 0.0)
    assert resolve_external(CARDS, [read_settings(path), {"faces": {"offset": 0.2}}]).faces.offset == 0.2


def test_another_head_does_not_inherit_options() -> None:
    base = {"head": "regression", "head_options": {"loss": "l2"}}
    assert deep_merge(base, {"head": "coral"}) == {"head": "coral"}
    assert deep_merge(base, {"head": "regression"}) == base


@given(st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3)))
def test_merging_with_itself_or_nothing_changes_nothing(table: object) -> None:
    wrapped = {"table": table}
    assert deep_merge(wrapped, wrapped) == wrapped
    assert deep_merge(wrapped, {}) == wrapped
    assert deep_merge({}, wrapped) == wrapped


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.lr=1e-3", {"train": {"lr": 0.001}}),
        ("device=cpu", {"device": "cpu"}),
        ("data.test=['a', 'b']", {"data": {"test": ["a", "b"]}}),
        ("model.head_options.loss = l2", {"model": {"head_options": {"loss": "l2"}}}),
    ],
)
def test_settings_are_read_as_toml_or_as_text(text: str, expected: object) -> None:
    assert parse_setting(text) == expected


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"train": {"epochs": 0}}, "train.epochs = 0: input should be greater than or equal to 1"),
        ({"train": {"learning_rate": 1}}, "unknown key 'train.learning_rate'"),
        ({"trian": {"lr": 1}}, "unknown key 'trian'; did you mean 'train'"),
        ({"data": {"test": ["nosuch"]}}, "no dataset called 'nosuch'"),
        ({"data": {"test": ["fgnett"]}}, "did you mean 'fgnet'"),
        ({"model": {"name": "resnet"}}, "did you mean 'resnet50'"),
        ({"model": {"train": {"lr": 1}}}, "unknown key 'model.train'"),
        ({"data": {"test_share": 1.5}}, "data.test_share = 1.5: input should be less than 1"),
    ],
)
def test_a_wrong_setting_names_key_and_value(layer: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as refused:
        resolve_config(CARDS, [DATA, layer])
    assert message in str(refused.value)


def test_a_setting_without_a_value() -> None:
    with pytest.raises(UserError, match="write it as key=value"):
        parse_setting("train.lr")


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.toml: not a readable TOML file"):
        read_settings(tmp_path / "gone.toml")


@pytest.mark.parametrize(
    "text",
    ["a.b=" + "[" * 50_000, "train.lr=nan", "seed=" + "9" * 5000, "seed=" + "9" * 30, "a" + ".a" * 5000 + "=1"],
    ids=["deep", "nan", "digits", "large", "dots"],
)
def test_parse_setting_refuses_what_no_setting_takes(text: str) -> None:
    with pytest.raises(UserError, match=r"^--set "):
        parse_setting(text)


def test_a_models_card_frames_its_faces_unless_the_run_does() -> None:
    card = resolve_config(CARDS, [DATA, {"model": {"name": "dlib_resnet"}}])
    assert (card.faces.coverage, card.faces.offset) == (1.03, 0.0)
    run = resolve_config(CARDS, [DATA, {"model": {"name": "dlib_resnet"}, "faces": {"coverage": 1.2, "offset": 0.1}}])
    assert (run.faces.coverage, run.faces.offset) == (1.2, 0.1)
    assert resolve_config(CARDS, [DATA, {"model": {"name": "resnet50"}}]).faces.coverage == 1.0


@pytest.mark.parametrize(
    ("file_model", "chosen", "epochs", "coverage"),
    [
        ("", "resnet50", 3, 1.5),  # a recipe for any model
        ("resnet50", "resnet50", 3, 1.5),
        ("mobilefacenet", "resnet50", None, None),
    ],
)
def test_a_files_recipe_and_framing_are_dropped_for_another_model_only(
    file_model: str, chosen: str, epochs: int | None, coverage: float | None, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.toml"
    named = f'[model]\nname = "{file_model}"\n' if file_model else ""
    path.write_text(f'[train]\nepochs = 3\n{named}[faces]\ncoverage = 1.5\nmode = "none"\n')
    card = resolve_config(CARDS, [DATA, {"model": {"name": chosen}}])
    config = resolve_config(CARDS, RunOptions(train="utk", model=chosen, config=path).layers())
    assert config.model.name == chosen
    assert config.train.epochs == (card.train.epochs if epochs is None else epochs)
    assert config.faces.coverage == (card.faces.coverage if coverage is None else coverage)
    assert config.faces.mode == "none"
