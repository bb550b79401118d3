"""What breaks a contract is named in one sentence that says what to mend and where the contract stands."""

import itertools
import textwrap
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from agebench.cli import main
from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.external import ExternalCard
from agebench.config.cards.model import ModelCard
from agebench.config.toml_io import validate_model
from agebench.data.readers import Reader, readers
from agebench.data.samples import Samples, validate_samples
from agebench.plugins.testing import ContractViolation, check_dataset, check_model

pytest_plugins = ["pytester"]

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)


class Good(Reader):
    """Five one-pixel images."""

    needs_files = False
    changes: ClassVar[dict[str, Any]] = {}

    def read(self) -> Samples:
        table = pd.DataFrame(
            {"sample_id": list("abcde"), "path": list("abcde"), "age": [1.0, 2, 3, 4, 5], "hat": list("xyxyx")}
        )
        samples = validate_samples(table, groups=self.groups)
        return Samples(samples.table.assign(**self.changes), self.groups, samples.rejected)

    def image_bytes(self, path: str) -> bytes:
        return PNG

    def version_token(self, path: str) -> str:
        return path


class Doubled(Good):
    changes: ClassVar[dict[str, Any]] = {"sample_id": list("aabcd")}


class Ancient(Good):
    changes: ClassVar[dict[str, Any]] = {"age": [1.0, 2, 3, 4, 500]}


class Absolute(Good):
    changes: ClassVar[dict[str, Any]] = {"path": ["/home/me/a.png", *"bcde"]}


class Foreign(Good):
    changes: ClassVar[dict[str, Any]] = {"gender": ["w", "m", "w", "m", "w"]}


class Raising(Good):
    def read(self) -> Samples:
        raise KeyError("age")


class Restless(Good):
    reads = itertools.count()

    def read(self) -> Samples:
        samples = super().read()
        order = np.roll(np.arange(5), next(Restless.reads) % 5)  # a permutation drawn at random may be the same twice
        return Samples(samples.table.iloc[order], self.groups, samples.rejected)


class NoImages(Good):
    def image_bytes(self, path: str) -> bytes:
        return b"no image"


class Paths(Good):
    def image_bytes(self, path: str) -> Any:
        return path


class Jittery(Good):
    clock = itertools.count()

    def version_token(self, path: str) -> str:
        return str(next(Jittery.clock))


class Unpicklable(Good):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open = lambda: None


def card(reader: str, **keys: Any) -> DatasetCard:
    return validate_model(
        DatasetCard, {"name": "it", "title": "It", "licence": "ours", "reader": reader} | keys, source="this test"
    )


@pytest.fixture(autouse=True, scope="session")  # with other modules between its tests, a module's would be set up twice
def registered() -> None:
    for kind in (Good, *Good.__subclasses__()):
        readers.register(f"test-{kind.__name__.lower()}", kind)
    readers.register("test-no-reader", dict)


def test_a_good_dataset_passes() -> None:
    assert check_dataset(card("test-good", groups=["hat"], count=5)) == "5 samples, 5 images opened"


@pytest.mark.parametrize(
    ("reader", "keys", "message"),
    [
        ("test-doubled", {}, "sample_id 'a' occurs twice"),
        ("test-ancient", {}, "ages are not all float64 within"),
        ("test-absolute", {}, "path '/home/me/a.png' is not relative"),
        ("test-foreign", {}, "gender 'm' is none of female, male"),
        ("test-raising", {}, "cannot be read: KeyError: 'age'"),
        ("test-restless", {}, "a second read gives other samples or another order"),
        ("test-noimages", {}, "listed as a usable image and cannot be opened"),
        ("test-paths", {}, "gives str; it must be the encoded image's bytes"),
        ("test-jittery", {}, "changes from call to call"),
        ("test-unpicklable", {}, "cannot be pickled"),
        ("test-no-reader", {}, "is no subclass of agebench.data.readers.Reader"),
        ("no-such-reader", {}, "no reader called 'no-such-reader'"),
        ("test-good", {"options": {"size": 3}}, "the options of reader 'test-good' are wrong"),
        ("test-good", {"groups": ["shoe"]}, "no column shoe"),
        ("test-good", {"labels": ["age", "gender"]}, "announces the label gender, and no sample has it"),
        ("test-good", {"labels": ["gender"]}, "does not contain age"),
        ("test-good", {"count": 3}, "5 samples, but the card's count is 3"),
        ("test-good", {"licence": " "}, "licence is empty"),
        ("test-good", {"faces": "landmarks"}, "needs three landmark_points"),
        ("csv", {}, "the card does not describe how to get the data"),
    ],
)
def test_a_dataset_that_breaks_its_contract(reader: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractViolation, match=message) as broken:
        check_dataset(card(reader, **keys))
    assert "contract: agebench." in str(broken.value)
    assert "\n" not in str(broken.value)


MODELS = """
import numpy as np
calls = 0
def good(faces): return 30 + faces.mean(axis=(1, 2, 3))
def share(faces): return good(faces) * 1000
def sorts(faces): return np.sort(good(faces))
def few(faces): return good(faces)[1:]
def relative(faces): return 20 + 40 * (good(faces) - good(faces).min()) / np.ptp(good(faces))
def drifts(faces):
    global calls
    calls += 1
    return good(faces) + calls
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("code") / "models_of_theirs.py"
    file.write_text(MODELS)
    return file


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("good", ""),
        ("share", "which are not human ages: set output.scale"),
        ("sorts", "the same faces in another order get other ages"),
        ("few", "gives 5 rows for 6 faces"),
        ("relative", "must not depend on what else is in its batch"),
        ("drifts", "in another order get other ages"),
    ],
)
def test_an_external_model(function: str, message: str, code: Path) -> None:
    content = {"name": "it", "title": "It", "licence": "ours", "format": "callable", "source": f"{code}:{function}"}
    model = validate_model(ExternalCard, content | {"input": {"size": 32}}, source="this test")
    if not message:
        assert check_model(model)
        return
    with pytest.raises(ContractViolation, match=message):
        check_model(model)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"backbone": "resnet1800"}, r"cannot be created: timm \S+ has no backbone 'resnet1800'"),
        ({"backbone": "agebench.tiny", "head": "corall"}, "cannot be created: no head called 'corall'"),
        ({"backbone": "agebench.tiny", "weights": "somebody"}, "weights = 'somebody' is none of the packages"),
    ],
)
def test_a_model_that_breaks_its_contract(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractViolation, match=message):
        check_model(validate_model(ModelCard, {"name": "it", "title": "It", "size": 32} | keys, source="this test"))


def test_the_command_says_what_is_good_and_what_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "theirs.toml").write_text(
        textwrap.dedent("""
            name = "theirs"
            title = "Theirs"
            backbone = "agebench.tiny"
            weights = "somebody"
        """)
    )
    assert main(["check", "tiny", "theirs", "--registry", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "model tiny: good (" in said
    assert "broken: model 'theirs': weights = 'somebody'" in said
    assert main(["check", "tinny"]) == 2
    assert "did you mean 'tiny'" in capsys.readouterr().err


@pytest.mark.slow
def test_pytest_runs_checks_that_it_is_asked_for(pytester: pytest.Pytester) -> None:
    arguments = ["-p", "no:cacheprovider"]
    done = pytester.runpytest_subprocess(*arguments, "--agebench-check", "regression", "--agebench-check", "tiny")
    done.assert_outcomes(passed=2)
    done = pytester.runpytest_subprocess(*arguments, "--agebench-check", "regresion")
    done.stderr.fnmatch_lines(["*did you mean 'regression'*"])
