"""The huggingface reader on local Parquet, Arrow and image folders, built here; no network."""

import hashlib
import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from datasets.exceptions import DatasetNotFoundError
from PIL import Image

from agebench.cli import main
from agebench.config.cards.dataset import DatasetCard
from agebench.data.digests import add_digests
from agebench.data.image_io import open_image
from agebench.data.readers import hf_download
from agebench.data.readers.huggingface import HuggingFaceReader
from agebench.data.readers.synth import SynthReader
from agebench.data.samples import Samples
from agebench.data.storage import importer, locate, verify
from agebench.data.storage.download import UnreachableError
from agebench.errors import AgebenchError, ImageRejectedError, UserError

AGES = ["0-2", "3-9", "20-29", "more than 70"]
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "age": datasets.ClassLabel(names=AGES),
        "gender": datasets.ClassLabel(names=["Male", "Female"]),
        "race": datasets.Value("string"),
        "person": datasets.Value("int64"),
    }
)
OPTIONS: dict[str, Any] = {"open_ages": [0, 90], "columns": {"subject": "person"}}


def picture(colour: int, size: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), (colour, 0, 0)).save(file, "PNG")
    return file.getvalue()


def labelled(count: int, first: int = 0) -> datasets.Dataset:
    numbers = range(first, first + count)
    rows = {
        "image": [{"bytes": picture(number), "path": f"{number}.png"} for number in numbers],
        "age": [number % 4 for number in numbers],
        "gender": [number % 2 for number in numbers],
        "race": ["A" if number % 3 else None for number in numbers],
        "person": list(numbers),
    }
    return datasets.Dataset.from_dict(rows, features=FEATURES)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built")
    labelled(4).to_parquet(root / "data" / "train-00000-of-00001.parquet")
    labelled(2, 4).to_parquet(root / "data" / "validation-00000-of-00001.parquet")
    return root


@pytest.fixture
def parquet(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture(autouse=True)
def own_library_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "library"))


def column(samples: Samples, name: str) -> list[object]:
    return [None if pd.isna(value) else value for value in samples.table[name].tolist()]


def colour(reader: HuggingFaceReader, path: str) -> int:
    return int(np.asarray(open_image(reader.image_bytes(path)))[0, 0, 0])


def reasons(samples: Samples) -> dict[str, str]:
    return dict(zip(samples.rejected["path"], samples.rejected["reason"], strict=True))


def plain(root: Path, images: list[Any], **labels: list[Any]) -> Path:
    """A Parquet file that knows nothing of the library."""
    root.mkdir(exist_ok=True)
    pd.DataFrame({"image": images, **labels}).to_parquet(root / "faces.parquet")
    return root


def test_parquet_with_class_labels_ranges_and_splits(parquet: Path) -> None:
    reader = HuggingFaceReader(parquet, ("gender", "race"), splits={"train": "train", "test": "validation"}, **OPTIONS)
    samples = reader.read()
    assert column(samples, "age") == [1, 6, 24.5, 80, 1, 6]
    assert column(samples, "age_high") == [2, 9, 29, 90, 2, 9]
    assert column(samples, "gender") == ["male", "female"] * 3
    assert column(samples, "race") == [None, "A", "A", None, "A", "A"]
    assert column(samples, "subject") == ["0", "1", "2", "3", "4", "5"]
    assert column(samples, "split") == ["train"] * 4 + ["test"] * 2
    assert column(samples, "sample_id")[3:5] == ["train/00000003", "validation/00000000"]
    assert [colour(reader, path) for path in samples.table["path"]] == [0, 1, 2, 3, 4, 5]
    assert column(HuggingFaceReader(parquet, **OPTIONS).read(), "split")[-1] == "val"
    only = HuggingFaceReader(parquet, splits={"test": "validation"}, **OPTIONS).read()
    assert column(only, "split") == ["test", "test"]


def test_workers_get_names_of_files_and_not_images(parquet: Path) -> None:
    reader = HuggingFaceReader(parquet, **OPTIONS)
    samples = reader.read()
    content = pickle.dumps(reader)
    assert len(content) < 20_000
    assert colour(pickle.loads(content), samples.table["path"][5]) == 5
    assert reader.version_token("train/00000000") == reader.version_token("train/00000001")


def test_a_file_that_changes_is_read_again(parquet: Path) -> None:
    old = HuggingFaceReader(parquet, **OPTIONS)
    assert len(old.read()) == 6
    stamp = old.version_token("train/00000000")
    labelled(3, 10).to_parquet(parquet / "data" / "train-00000-of-00001.parquet")
    new = HuggingFaceReader(parquet, **OPTIONS)
    assert column(new.read(), "subject") == ["10", "11", "12", "4", "5"]
    assert stamp != new.version_token("train/00000000")


def test_a_dataset_is_built_once_wherever_it_is_moved_to(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(HuggingFaceReader(parquet, **OPTIONS).read()) == 6
    monkeypatch.setattr(datasets, "load_dataset", None)
    parquet.rename(parquet.parent / "moved")
    reader = HuggingFaceReader(parquet.parent / "moved", **OPTIONS)
    assert [colour(reader, path) for path in reader.read().table["path"]] == [0, 1, 2, 3, 4, 5]


def test_what_save_to_disk_writes(tmp_path: Path) -> None:
    parts = datasets.DatasetDict({"train": labelled(4), "test": labelled(2, 4)})
    parts.save_to_disk(tmp_path / "saved")
    reader = HuggingFaceReader(tmp_path / "saved", **OPTIONS)
    samples = reader.read()
    assert column(samples, "split") == ["test"] * 2 + ["train"] * 4
    assert [colour(reader, path) for path in samples.table["path"]] == [4, 5, 0, 1, 2, 3]


def test_an_image_folder_with_metadata(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "train", "test")):
        (tmp_path / split).mkdir(exist_ok=True)
        (tmp_path / split / f"{number}.png").write_bytes(picture(number))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,age,sex\n0.png,31,M\n1.png,7,F\n")
    (tmp_path / "test" / "metadata.csv").write_text("file_name,age,sex\n2.png,50,F\n")
    reader = HuggingFaceReader(tmp_path, ("gender",), columns={"gender": "sex"})
    samples = reader.read()
    found = dict(
        zip(column(samples, "path"), zip(column(samples, "age"), column(samples, "split"), strict=True), strict=True)
    )
    assert found == {"train/0.png": (31, "train"), "train/1.png": (7, "train"), "test/2.png": (50, "test")}
    assert colour(reader, "test/2.png") == 2
    (tmp_path / "test" / "2.png").write_bytes(picture(9))
    assert colour(reader, "test/2.png") == 9


def test_an_image_folder_of_classes(tmp_path: Path) -> None:
    for number, age in enumerate(("3-9", "20-29")):
        (tmp_path / age).mkdir()
        (tmp_path / age / f"{number}.png").write_bytes(picture(number))
    samples = HuggingFaceReader(tmp_path, columns={"age": "label"}).read()
    assert set(column(samples, "age")) == {24.5, 6}
    assert column(samples, "split") == [None, None]


def test_images_as_bytes_paths_and_nothing(tmp_path: Path) -> None:
    root = plain(tmp_path / "set", [picture(1), picture(2), None], age=[3, 4, 5])
    samples = HuggingFaceReader(root).read()
    assert column(samples, "age") == [3, 4]
    assert reasons(samples) == {"train/00000002": "the table holds no image for it"}

    (tmp_path / "secret.png").write_bytes(picture(5))
    paths = ["a.png", "gone.png", "../../secret.png", str(tmp_path / "secret.png"), "b.png"]
    root = plain(tmp_path / "paths", paths, age=[1, 2, 3, 4, 5])
    (root / "faces").mkdir()
    for number, name in enumerate("ab"):
        (root / "faces" / f"{name}.png").write_bytes(picture(number))
    reader = HuggingFaceReader(root, images="faces")
    samples = reader.read()
    assert column(samples, "path") == ["faces/a.png", "faces/b.png"]
    assert colour(reader, "faces/b.png") == 1
    assert reasons(samples) == {
        "gone.png": "no file 'faces/gone.png'",
        "../../secret.png": "its path '../../secret.png' leads out of the dataset's folder",
        str(tmp_path / "secret.png"): f"its path '{tmp_path / 'secret.png'}' leads out of the dataset's folder",
    }


def test_addresses_are_refused_unless_the_card_allows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plain(tmp_path / "set", ["http://example.org/a.png", "https://example.org/b.png"], age=[1, 2])
    with pytest.raises(
        UserError, match=r"2 images are addresses, the first is http://example\.org/a\.png; options\.urls"
    ):
        HuggingFaceReader(root).read()
    got = tmp_path / "got.png"
    got.write_bytes(picture(7))
    reader = HuggingFaceReader(root, urls=True)
    with monkeypatch.context() as patched:
        patched.setattr("agebench.data.storage.download.download", lambda url, folder: got)
        assert [colour(reader, path) for path in reader.read().table["path"]] == [7, 7]
    root = plain(tmp_path / "dead", ["http://127.0.0.1:9/a.png"], age=[1])
    with pytest.raises(ImageRejectedError, match=r"http://127\.0\.0\.1:9/a\.png: cannot be reached"):
        HuggingFaceReader(root, urls=True).image_bytes("http://127.0.0.1:9/a.png")


def test_an_address_that_could_not_be_reached_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [f"http://example.org/{number}.png" for number in range(12)]
    reader = HuggingFaceReader(plain(tmp_path / "set", addresses, age=list(range(12))), urls=True)
    got = tmp_path / "got.png"
    got.write_bytes(picture(7))
    asked: list[str] = []

    def download(url: str, folder: Path) -> Path:
        asked.append(url)
        if asked == addresses[:4]:
            raise UnreachableError(f"{url}: cannot be reached: timed out")
        return got

    monkeypatch.setattr("agebench.data.storage.download.download", download)
    rejected = add_digests(reader, reader.read(), name="addresses").rejected
    assert rejected["code"].tolist() == ["unreachable-url"]
    assert len(add_digests(reader, reader.read(), name="addresses")) == 12
    assert asked == [*addresses, addresses[3]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"age": "years"}}, r"no column 'years' for age; there are age, gender, race, person"),
        ({"columns": {"image": "photo"}}, r"no column 'photo' for image; there are image, age"),
        ({"splits": {"test": "tset"}}, r"no split 'tset', there are train, validation"),
        ({"splits": {"exam": "train"}}, r"options\.splits: 'exam' is none of train, val, test"),
        ({"open_ages": []}, r"age 'more than 70' is a range with an open end"),
    ],
)
def test_what_is_wrong_is_named(parquet: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        HuggingFaceReader(parquet, **{**OPTIONS, **options}).read()


def test_a_card_that_names_another_column_of_images_gets_its_pixels(tmp_path: Path) -> None:
    columns = {name: [{"bytes": picture(red), "path": None}] for name, red in (("face", 1), ("photo", 2))}
    root = plain(tmp_path / "set", columns["face"], photo=columns["photo"], age=[30])
    digests = {}
    for name in ("image", "photo"):
        reader = HuggingFaceReader(root, columns={"image": name})
        samples = add_digests(reader, reader.read(), name="two", workers=1)
        digests[name] = samples.table["bytes_digest"][0]
        assert digests[name] == hashlib.sha256(reader.image_bytes(samples.table["path"][0])).hexdigest()
    assert digests["image"] != digests["photo"]


def test_no_image_column_and_a_group_that_is_not_there(tmp_path: Path, parquet: Path) -> None:
    pd.DataFrame({"photo": [picture(1)], "age": [3]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="no column of images among photo, age"):
        HuggingFaceReader(tmp_path / "x.parquet").read()
    assert len(HuggingFaceReader(tmp_path / "x.parquet", columns={"image": "photo"}).read()) == 1
    with pytest.raises(UserError, match="no column 'tone' for tone"):
        HuggingFaceReader(parquet, ("tone",), **OPTIONS).read()


def test_a_parquet_file_cut_short_and_one_damaged_within(parquet: Path) -> None:
    file = parquet / "data" / "train-00000-of-00001.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"train-00000-of-00001\.parquet: not a whole Parquet file"):
        HuggingFaceReader(parquet, **OPTIONS).read()
    file.write_bytes(whole[:8] + b"\xff" * 400 + whole[408:])
    with pytest.raises(UserError, match="its parquet files cannot be read"):
        HuggingFaceReader(parquet, **OPTIONS).read()
    shutil.rmtree(parquet / "data")
    with pytest.raises(UserError, match="no Parquet or Arrow file in it, and no image"):
        HuggingFaceReader(parquet, **OPTIONS).read()


def test_unreadable_images_are_counted_and_above_a_limit_stop_the_run(tmp_path: Path) -> None:
    images = [picture(number) for number in range(40)]
    images[3] = images[17] = b"no image"
    reader = HuggingFaceReader(plain(tmp_path / "set", images, age=[30] * 40))
    samples = add_digests(reader, reader.read(), name="mine")
    assert len(samples) == 38
    assert reasons(samples) == dict.fromkeys(
        ["train/00000003", "train/00000017"], "not an image in a format that is read here"
    )
    images[20:30] = [b"no image"] * 10
    reader = HuggingFaceReader(plain(tmp_path / "set", images, age=[30] * 40))
    with pytest.raises(AgebenchError, match="12 of 40 images cannot be read"):
        add_digests(reader, reader.read(), name="mine")


# The hub


def card(**options: Any) -> DatasetCard:
    return DatasetCard(
        name="mine",
        title="Mine",
        reader="huggingface",
        licence="mine",
        options={"hub": "me/mine", **OPTIONS, **options},
    )


class Builder:
    """What `load_dataset_builder` gives for a repository of Parquet files."""

    hash = "a" * 40

    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts = parts

    def download_and_prepare(self) -> None:
        pass

    def as_dataset(self) -> dict[str, Any]:
        return self.parts

    def as_streaming_dataset(self) -> dict[str, Any]:
        return {split: part.to_iterable_dataset() for split, part in self.parts.items()}


@pytest.fixture
def on_hub(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    files = {path.name.split("-")[0]: str(path) for path in sorted((built / "data").iterdir())}
    parts = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "library"))
    calls: list[dict[str, Any]] = []

    def builder(name: str, config: str | None, *, revision: str | None) -> Builder:
        calls.append({"name": name, "config": config, "revision": revision})
        return Builder(dict(parts))

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    return calls


def test_get_brings_one_revision_and_remembers_it(on_hub: list[dict[str, Any]]) -> None:
    wanted = card(config="small", revision="a" * 40, splits={"train": "train", "test": "validation"})
    report = importer.download_dataset(wanted)
    assert (report.images, report.was_present) == (6, False)
    assert on_hub == [{"name": "me/mine", "config": "small", "revision": "a" * 40}]
    assert json.loads((report.root / "source.json").read_text())["revision"] == "a" * 40
    assert sorted(path.name for path in report.root.rglob("*.arrow")) == ["00000.arrow", "00000.arrow"]
    reader = locate.open_dataset_reader(wanted)
    samples = reader.read()
    assert column(samples, "split") == ["train"] * 4 + ["test"] * 2
    assert [colour(reader, path) for path in samples.table["path"]] == [0, 1, 2, 3, 4, 5]  # type: ignore[arg-type]
    assert importer.download_dataset(wanted).was_present
    assert len(on_hub) == 1
    assert verify.verify_dataset(wanted).problems == ()


def test_a_copy_of_another_revision_is_not_taken_for_the_cards(on_hub: list[dict[str, Any]]) -> None:
    root = importer.download_dataset(card(revision="a" * 40)).root
    for revision in ("", "main"):
        assert importer.download_dataset(card(revision=revision)).was_present
    message = rf"source\.json has revision {'a' * 40}, the card asks for {'b' * 40}\. .* delete {root}, then"
    with pytest.raises(UserError, match=message):
        importer.download_dataset(card(revision="b" * 40))
    (root / "source.json").write_text("[]")
    assert importer.download_dataset(card(revision="b" * 40)).was_present


def test_rows_of_a_table_are_compared_with_those_of_the_copy(tmp_path: Path) -> None:
    sources = []
    for name, colours in (("first", (1, 2, 3)), ("second", (1, 2, 4))):
        (tmp_path / name).mkdir()
        images = [{"bytes": picture(each), "path": None} for each in colours]
        pd.DataFrame({"image": images, "age": [20, 30, 40]}).to_parquet(tmp_path / name / "train.parquet")
        sources.append(tmp_path / name)
    wanted = DatasetCard(name="mine", title="Mine", reader="huggingface", licence="m")
    importer.import_dataset(wanted, sources[0])
    assert importer.import_dataset(wanted, sources[0]).was_present
    with pytest.raises(UserError, match=r"1 of 3 compared images changed, the first is 'train/00000002'"):
        importer.import_dataset(wanted, sources[1])


def test_another_revision_in_the_cache_is_not_taken_for_the_cards(on_hub: list[dict[str, Any]]) -> None:
    with pytest.raises(AgebenchError, match=f"holds revision {'a' * 40}, the card asks for {'b' * 40}"):
        importer.download_dataset(card(revision="b" * 40))
    assert not locate.dataset_dir(card()).exists()


def test_a_split_that_the_hub_does_not_have(on_hub: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"'me/mine': no split 'exam', there are train, validation"):
        importer.download_dataset(card(splits={"test": "exam"}))
    assert [path.name for path in locate.dataset_dir(card()).parent.iterdir()] == [".mine.lock"]


def test_streaming_keeps_small_images(on_hub: list[dict[str, Any]]) -> None:
    wanted = card(streaming=True, side=4)
    assert importer.download_dataset(wanted).images == 6
    reader = locate.open_dataset_reader(wanted)
    samples = reader.read()
    image = open_image(reader.image_bytes(samples.table["path"][4]))
    assert image.size == (4, 4)
    assert column(samples, "age") == [1, 6, 24.5, 80, 1, 6]
    assert hf_download.downscale_jpeg(b"no image", 4) == b"no image"


def test_images_beside_the_table_are_brought_in_and_other_files_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = tmp_path / "library" / "0.png", tmp_path / "secret.png"
    inside.parent.mkdir()
    for number, file in enumerate((inside, outside)):
        file.write_bytes(picture(number))
    rows = {"image": [{"bytes": None, "path": str(path)} for path in (inside, outside)], "age": [3, 4]}
    part = datasets.Dataset.from_dict(
        rows, features=datasets.Features({"image": datasets.Image(), "age": datasets.Value("int64")})
    )
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: Builder({"train": part}))
    wanted = DatasetCard(name="mine", title="Mine", reader="huggingface", licence="m", options={"hub": "me/mine"})
    importer.download_dataset(wanted)
    reader = locate.open_dataset_reader(wanted)
    samples = reader.read()
    assert column(samples, "age") == [3]
    assert colour(reader, "train/00000000") == 0  # type: ignore[arg-type]
    assert "leads out of" in samples.rejected["reason"][0]


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (
            DatasetNotFoundError("Dataset 'me/mine' doesn't exist on the Hub."),
            UserError,
            "not there: Dataset 'me/mine' doesn't",
        ),
        (ConnectionError("Couldn't reach it"), AgebenchError, "the hub cannot be reached: Couldn't reach it"),
        (ValueError("BuilderConfig 'x' not found.\nmore"), UserError, r"'me/mine': BuilderConfig 'x' not found\.$"),
        (RuntimeError("Dataset scripts are no longer supported"), UserError, "scripts are no longer supported"),
        (OSError(28, "No space left on device"), AgebenchError, "the disk is full"),
    ],
)
def test_the_hubs_errors_are_sentences(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[AgebenchError], message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with pytest.raises(kind, match=message):
        importer.download_dataset(card())
    assert not locate.dataset_dir(card()).exists()


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (datasets.config, hub_constants()):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    with pytest.raises(AgebenchError, match=r"offline mode is on \(HF_HUB_OFFLINE\)"):
        importer.download_dataset(card())


def hub_constants() -> Any:
    from huggingface_hub import constants

    return constants


def test_a_dataset_that_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match="`agebench data download mine` downloads it"):
        locate.locate(card())


def test_the_list_says_how_to_get_a_hub_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fairface-hub"))
    assert line.endswith("missing    agebench data download fairface-hub")


@pytest.mark.slow
def test_a_run_from_card_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = SynthReader(None, count=48, size=48)
    faces = source.read().table
    for split, rows in (("train", faces[:32]), ("validation", faces[32:])):
        images = [{"bytes": source.image_bytes(path), "path": None} for path in rows["path"]]
        labels = {"age": rows["age"].astype("int64").tolist(), "gender": rows["gender"].astype("str").tolist()}
        part = datasets.Dataset.from_dict({"image": images, **labels})
        part.to_parquet(tmp_path / "set" / f"{split}-00000-of-00001.parquet")
    text = (
        'name = "mine"\ntitle = "Mine"\nreader = "huggingface"\nlicence = "mine"\ngroups = ["gender"]\nfaces = "none"\n'
    )
    (tmp_path / "registry" / "datasets").mkdir(parents=True)
    (tmp_path / "registry" / "datasets" / "mine.toml").write_text(
        text + 'options = { splits = { train = "train", test = "validation" } }\n'
    )
    registry = ["--registry", str(tmp_path / "registry")]
    assert main(["data", "add", "mine", str(tmp_path / "set"), *registry]) == 0
    assert main(["data", "check", "mine", "--full", *registry]) == 0
    command = [
        "run",
        "--train",
        "mine",
        "--test",
        "mine",
        "--model",
        "tiny",
        "--epochs",
        "1",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*command, "--set", "train.batch_size=8", *registry]) == 0, capsys.readouterr()
    tested = pd.read_parquet(tmp_path / "run" / "predictions" / "mine.parquet")
    assert set(tested["sample_id"]) == {f"validation/{row:08d}" for row in range(16)}
    assert tested["age"].tolist() == faces["age"][32:].tolist()
