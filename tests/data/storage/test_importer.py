import io
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from agebench.cli import main
from agebench.config.cards.dataset import DatasetCard
from agebench.data.storage import verify
from agebench.data.storage.importer import download_dataset, import_dataset
from agebench.data.storage.locate import dataset_dir, locate, open_dataset_reader
from agebench.data.storage.verify import verify_dataset
from agebench.errors import AgebenchError, DatasetNotFoundError, UserError


def card(**changes: object) -> DatasetCard:
    facts = {"name": "mine", "title": "My faces", "reader": "folder", "licence": "mine alone", "count": 3}
    return DatasetCard.model_validate(facts | changes)


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 150, 120)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("20/a.jpg", "30/b.jpg", "40/c.jpg"):
        path = tmp_path / "copy" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(picture())
    return tmp_path / "copy"


@pytest.fixture
def archive(folder: Path) -> Path:
    path = folder.parent / "copy.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, arcname="copy")
    return path


@pytest.fixture
def registry_of_mine(tmp_path: Path) -> Path:
    (tmp_path / "registry" / "datasets").mkdir(parents=True)
    text = 'name = "mine"\ntitle = "My faces"\nreader = "folder"\nlicence = "mine alone"\ncount = 3\n'
    (tmp_path / "registry" / "datasets" / "mine.toml").write_text(text)
    return tmp_path / "registry"


def leftovers() -> list[str]:
    home = dataset_dir(card())
    return sorted(
        path.name for path in home.parent.iterdir() if path.name not in ("mine", ".mine.lock", ".mine.lock.owner")
    )


def test_a_missing_dataset_says_where_how_and_under_what_licence() -> None:
    wanted = card(homepage="https://example.org/faces", how_to_get="ask its owner", url="https://example.org/faces.zip")
    with pytest.raises(DatasetNotFoundError) as raised:
        locate(wanted)
    message = str(raised.value)
    for part in (
        str(dataset_dir(wanted)),
        "agebench data import mine PATH",
        "agebench data download mine",
        "ask its owner",
        "https://example.org/faces",
        "mine alone",
    ):
        assert part in message
    assert len(message.splitlines()) <= 2
    assert raised.value.exit_code == 2


def test_a_dataset_that_is_made_needs_no_place() -> None:
    made = card(name="made", reader="synth", count=None)
    assert locate(made) is None
    with pytest.raises(UserError, match="nothing to add"):
        import_dataset(made, Path("/"))


def test_an_archive_and_a_folder_give_the_same_samples(folder: Path, archive: Path) -> None:
    from_archive = card(name="one")
    report = import_dataset(from_archive, archive)
    assert (report.images, report.rejected, report.was_present) == (3, 0, False)
    assert report.root == dataset_dir(from_archive)
    import_dataset(card(), folder)
    tables = [open_dataset_reader(one).read().table for one in (from_archive, card())]
    assert tables[0]["sample_id"].tolist() == tables[1]["sample_id"].tolist() == ["20/a.jpg", "30/b.jpg", "40/c.jpg"]
    assert open_dataset_reader(card()).image_bytes("20/a.jpg") == picture()
    assert folder.is_dir()
    assert archive.exists()


def test_adding_twice_is_no_error(folder: Path, archive: Path) -> None:
    import_dataset(card(), folder)
    marker = dataset_dir(card()) / "20" / "a.jpg"
    before = marker.stat().st_mtime_ns
    assert import_dataset(card(), archive).was_present
    assert import_dataset(card(), dataset_dir(card())).was_present
    assert marker.stat().st_mtime_ns == before


def test_a_good_copy_is_replaced_on_demand_only(folder: Path, archive: Path) -> None:
    import_dataset(card(), folder)
    assert not import_dataset(card(), archive, replace=True).was_present
    assert (dataset_dir(card()) / "copy" / "20" / "a.jpg").exists()
    assert leftovers() == []


def test_a_copy_with_other_pixels_of_the_same_size_is_named(folder: Path) -> None:
    import_dataset(card(), folder)
    file = folder / "30" / "b.jpg"
    content = bytearray(file.read_bytes())
    content[-10] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"1 of 3 compared images changed, the first is '30/b\.jpg'.* --replace"):
        import_dataset(card(), folder)


def test_photographs_with_boxes_are_compared(folder: Path) -> None:
    (folder / "labels.csv").write_text(
        "path,age,l,t,r,b\n20/a.jpg,20,0,0,4,4\n20/a.jpg,30,4,4,8,8\n30/b.jpg,40,0,0,8,8\n"
    )
    boxed = card(reader="csv", options={"box": ["l", "t", "r", "b"]})
    import_dataset(boxed, folder)
    assert import_dataset(boxed, folder).was_present
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (0, 0, 0)).save(file, "JPEG")
    (folder / "20" / "a.jpg").write_bytes(file.getvalue())
    with pytest.raises(UserError, match=r"2 of 3 compared images changed, the first is '20/a\.jpg#0"):
        import_dataset(boxed, folder)


def test_a_damaged_copy_is_replaced(folder: Path, archive: Path) -> None:
    import_dataset(card(), folder)
    (dataset_dir(card()) / "20" / "a.jpg").unlink()
    report = import_dataset(card(), archive)
    assert not report.was_present
    assert report.images == 3


def test_another_count_names_both_and_the_way_out(folder: Path) -> None:
    (folder / "20" / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"2 usable images, but a whole copy of 'mine' has 3.*--allow-partial"):
        import_dataset(card(), folder)
    with pytest.raises(DatasetNotFoundError):
        locate(card())
    assert leftovers() == []
    assert import_dataset(card(), folder, allow_partial=True).images == 2
    assert import_dataset(card(), folder, allow_partial=True).was_present


def test_a_copy_without_the_labels_that_the_card_announces(folder: Path) -> None:
    wanted = card(labels=("age", "landmarks"))
    with pytest.raises(UserError, match="no image has landmarks, which the card of 'mine' announces"):
        import_dataset(wanted, folder)
    assert import_dataset(wanted, folder, allow_partial=True).images == 3


def test_what_was_put_aside_explains_a_wrong_count(folder: Path) -> None:
    (folder / "40").rename(folder / "400")
    with pytest.raises(UserError, match=r"2 usable images \(1 rejected, the first: age 400 is outside"):
        import_dataset(card(), folder)


def test_a_folder_of_another_format_is_named_as_the_user_knows_it(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(picture())
    with pytest.raises(UserError, match="has no folder that is an age") as raised:
        import_dataset(card(), tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}: ")
    assert leftovers() == []


def test_a_link_leaves_the_folder_where_it_is(folder: Path) -> None:
    import_dataset(card(), folder, link=True)
    assert dataset_dir(card()).readlink() == folder
    assert len(open_dataset_reader(card()).read()) == 3
    assert import_dataset(card(), folder, link=True).was_present
    folder.rename(folder.with_name("moved"))
    with pytest.raises(DatasetNotFoundError, match="which is gone"):
        locate(card())
    assert not import_dataset(card(), folder.with_name("moved"), link=True).was_present


def test_replacing_a_link_spares_the_folder_behind_it(folder: Path, archive: Path) -> None:
    import_dataset(card(), folder, link=True)
    import_dataset(card(), archive, replace=True)
    assert not dataset_dir(card()).is_symlink()
    assert (folder / "20" / "a.jpg").exists()


def test_a_folder_with_links_that_lead_out_is_not_copied(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "d.jpg").write_bytes(picture())
    (folder / "20" / "d.jpg").symlink_to(tmp_path / "d.jpg")
    with pytest.raises(UserError, match=r"20/d\.jpg is a link that leads out of the folder"):
        import_dataset(card(), folder)


def test_import_copies_files_of_any_size_and_depth(folder: Path) -> None:
    contents = {"notes/empty.txt": b"", "notes/deep/er/large.bin": bytes(range(256)) * 9000}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    import_dataset(card(), folder)
    copied = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert contents.items() < copied.items()
    home = dataset_dir(card())
    assert {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()} == copied


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        import_dataset(card(), tmp_path / "nowhere.zip")


def test_a_wrong_option_is_found_before_anything_is_copied(folder: Path) -> None:
    with pytest.raises(UserError, match="dataset card 'mine': the options of reader 'folder' are wrong"):
        import_dataset(card(options={"patern": ""}), folder)
    assert not dataset_dir(card()).parent.exists()


def test_what_a_killed_call_left_is_cleared(folder: Path) -> None:
    old = dataset_dir(card()).parent / ".mine.abc.adding"
    (old / "mine").mkdir(parents=True)
    import_dataset(card(), folder)
    assert leftovers() == []


def killed_before(method: str, count: int, work: Callable[[], object]) -> None:
    """Do `work` in a process that kills itself before its `count`-th call of that method of Path."""
    child = os.fork()
    if child:
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        return
    try:
        original, calls = getattr(Path, method), iter(range(1, count))

        def step(path: Path, *arguments: object) -> object:
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(path, *arguments)

        setattr(Path, method, step)
        work()
    finally:
        os._exit(0)


# The first ends the extraction, then the old copy makes room, the new one takes its place, the old one is discarded.
@pytest.mark.parametrize("renames", [1, 2, 3, 4])
def test_add_replace_killed_leaves_a_copy(
    renames: int, folder: Path, archive: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import_dataset(card(), folder)
    killed_before("rename", renames, lambda: import_dataset(card(), archive, replace=True))
    assert len(leftovers()) == 1
    root = locate(card())
    assert root is not None
    assert len(open_dataset_reader(card()).read()) == 3
    assert (root / "copy").exists() == (renames > 2)
    assert leftovers() == []
    assert ("interrupted before it ended" in caplog.text) == (renames == 3)


def test_add_replace_killed_keeps_the_old_copy(folder: Path, archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    import_dataset(card(), folder)
    killed_before("rename", 3, lambda: import_dataset(card(), archive, replace=True))
    for picture_file in dataset_dir(card()).parent.rglob("copy/*/*.jpg"):
        picture_file.unlink()
    assert import_dataset(card(), folder).was_present
    assert "the copy that was there before is back" in caplog.text
    assert leftovers() == []


def test_get_killed_keeps_what_was_downloaded(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = card(url=archive.as_uri())
    killed_before("rename", 2, lambda: download_dataset(source))  # the first ends the extraction
    archive.unlink()
    assert download_dataset(source).images == 3
    assert leftovers() == []


@pytest.mark.parametrize("renames", [2, 3])
def test_add_interrupted_between_renames_keeps_a_copy(
    renames: int, folder: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_dataset(card(), folder)
    calls, rename = iter(range(1, renames + 1)), Path.rename

    def step(path: Path, target: Path) -> Path:
        if next(calls, None) == renames:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", step)
    with pytest.raises(KeyboardInterrupt):
        import_dataset(card(), archive, replace=True)
    assert len(open_dataset_reader(card()).read()) == 3
    assert leftovers() == []


@pytest.mark.parametrize("action", ["list", "check", "locate", "add"])
def test_every_call_clears_what_a_killed_call_left(action: str, folder: Path, registry_of_mine: Path) -> None:
    import_dataset(card(), folder)
    old = dataset_dir(card()).parent / ".mine.abc.adding"
    (old / "mine").mkdir(parents=True)
    commands = {
        "list": lambda: main(["data", "list", "--registry", str(registry_of_mine)]),
        "check": lambda: main(["data", "check", "--registry", str(registry_of_mine)]),
        "locate": lambda: locate(card()),
        "add": lambda: import_dataset(card(), folder),
    }
    commands[action]()
    assert leftovers() == []


def test_locate_leaves_a_call_at_work_alone(folder: Path) -> None:
    import_dataset(card(), folder)
    staging = dataset_dir(card()).parent / ".mine.abc.adding"
    (staging / "mine").mkdir(parents=True)
    with FileLock(dataset_dir(card()).parent / ".mine.lock"):
        locate(card())
    assert staging.exists()


def test_add_spares_the_staging_of_a_dataset_with_a_longer_name(folder: Path) -> None:
    other = dataset_dir(card()).parent / ".mine.too.abc.adding"
    other.mkdir(parents=True)
    import_dataset(card(), folder)
    assert other.exists()


def test_add_refuses_a_source_inside_the_copy(folder: Path) -> None:
    import_dataset(card(), folder)
    inside = dataset_dir(card()) / "20"
    with pytest.raises(UserError, match="lies inside"):
        import_dataset(card(), inside, replace=True, link=True)
    assert len(open_dataset_reader(card()).read()) == 3


def test_get_downloads_and_adds(archive: Path) -> None:
    source = card(url=archive.as_uri())
    assert download_dataset(source).images == 3
    archive.unlink()
    assert download_dataset(source).was_present


def test_get_without_an_open_source_says_how_else() -> None:
    with pytest.raises(
        UserError, match=r"no open source: ask nicely \(https://example.org\).*agebench data import mine PATH"
    ):
        download_dataset(card(how_to_get="ask nicely", homepage="https://example.org"))


def test_get_refuses_another_file_than_the_cards(archive: Path) -> None:
    with pytest.raises(AgebenchError, match=r"its SHA-256 is .*, but the card specifies 0000"):
        download_dataset(card(url=archive.as_uri(), sha256="0" * 64))
    with pytest.raises(DatasetNotFoundError):
        locate(card())


def test_get_does_not_keep_a_web_page(archive: Path) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(b"<html>try later</html>")
    with pytest.raises(UserError, match="a web page, not an archive"):
        download_dataset(card(url=archive.as_uri()))
    archive.write_bytes(whole)
    assert download_dataset(card(url=archive.as_uri())).images == 3


def test_check_finds_a_good_copy_good(folder: Path) -> None:
    import_dataset(card(), folder)
    report = verify_dataset(card())
    assert (report.images, report.expected, report.decoded, report.problems) == (3, 3, 3, ())


def test_check_names_what_is_wrong(folder: Path) -> None:
    import_dataset(card(), folder)
    home = dataset_dir(card())
    (home / "20" / "a.jpg").write_bytes(picture()[:100])
    (home / "40").rename(home / "400")
    report = verify_dataset(card(), full=True)
    assert report.unreadable.keys() == {"20/a.jpg"}
    assert report.rejected == {"age-out-of-range": 1}
    assert report.details == {"age-out-of-range": "age 400 is outside [0, 120]"}
    assert report.problems[0].startswith("1 of 3 rows (33.3 %) are rejected as age-out-of-range")
    assert report.problems[1] == "2 usable images, a whole copy has 3"
    assert report.problems[2].startswith("1 of 2 images cannot be opened, the first is 20/a.jpg: a damaged image")


def test_check_opens_a_sample_or_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_dataset(card(), folder)
    monkeypatch.setattr(verify, "VERIFY_SAMPLE_SIZE", 2)
    assert verify_dataset(card()).decoded == 2
    assert verify_dataset(card(), full=True).decoded == 3


def test_check_reports_a_copy_that_has_another_format(folder: Path) -> None:
    import_dataset(card(), folder)
    report = verify_dataset(card(reader="utkface"))
    assert len(report.problems) == 1
    assert "none of 3 images is usable" in report.problems[0]
