"""Their authors' checkpoints, by names, shapes and what the official code says with made-up weights; and what is refused."""

import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo_official as official

from agebench.cli import main
from agebench.errors import UserError
from agebench.models.age_model import AgeModel, create_model
from agebench.models.architectures.official_weights import load_published
from agebench.registry.catalog import load_catalog

pytestmark = pytest.mark.slow  # networks of their full size

CARDS = {name: load_catalog().models.get(name).architecture for name in ("mivolo-d1", "volo-d1", "swinface")}
# Numbers of parameters of the official models, with gender.
PARAMETERS = {"mivolo-d1": 27_432_414, "volo-d1": 25_864_350, "swinface": 67_809_266}
CHECKPOINTS: dict[str, Callable[..., dict[str, Any]]] = {
    "mivolo-d1": lambda **changed: official.mivolo(**changed),
    "volo-d1": lambda **changed: official.mivolo(bodies=False, **changed),
    "swinface": lambda **changed: official.swinface(**changed),
}
# What the official code says to `official.picture` with these numbers: age's output, gender's two.
SAID = {
    "mivolo-d1": (-0.592500, {"male": 2.056269, "female": 1.991688}),
    "volo-d1": (0.127640, {"male": 0.095351, "female": -3.432356}),
    "swinface": (5.250125, {"female": -11.107834, "male": -20.207344}),
}


def saved(content: Any, tmp_path: Path) -> Path:
    torch.save(content, tmp_path / "theirs.pth.tar")
    return tmp_path / "theirs.pth.tar"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[AgeModel, str]]:
    """Each model with its made-up weights, made once."""
    known: dict[str, tuple[AgeModel, str]] = {}

    def make(name: str) -> tuple[AgeModel, str]:
        if name not in known:
            model = create_model(CARDS[name])
            path = saved(CHECKPOINTS[name](epoch=3), tmp_path_factory.mktemp("theirs"))
            said = str(load_published(model, CARDS[name], path))
            model.add_task("gender", ("female", "male"))
            known[name] = model.eval(), said
        return known[name]

    return make


@pytest.mark.parametrize("name", CARDS)
def test_it_says_what_the_official_code_says(name: str, loaded: Callable[[str], tuple[AgeModel, str]]) -> None:
    model, said = loaded(name)
    card = CARDS[name]
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    with torch.inference_mode():
        age, tasks = model.split(model(official.picture(card.channels, card.size)))
        years = model.predict(official.picture(card.channels, card.size)).age
    raw, genders = SAID[name]
    assert age.item() == pytest.approx(raw, abs=1e-4)
    assert tasks["gender"][0].tolist() == pytest.approx([genders["female"], genders["male"]], abs=1e-4)
    assert years.item() == pytest.approx(raw if name == "swinface" else raw * (95 - 1) + 36.5, abs=1e-2)
    assert "tensors loaded" in said
    assert "not used: epoch" in said


def test_the_embedding_and_the_attributes_are_kept(loaded: Callable[[str], tuple[AgeModel, str]]) -> None:
    model, said = loaded("swinface")
    with torch.inference_mode():
        everything = model.backbone.everything(official.picture(3, 112))
    assert everything["embedding"][0, :4].tolist() == pytest.approx(
        [0.021265, 0.102340, -0.041072, -0.092154], abs=1e-4
    )
    assert everything["embedding"].norm().item() == pytest.approx(1.328044, abs=1e-4)
    assert everything["expression"][0, :3].tolist() == pytest.approx([7.249185, 4.008905, -2.446837], abs=1e-3)
    assert len(everything) == 42  # 41 outputs beside age, and the embedding
    assert "17 derived tensors recomputed" in said


def test_a_body_that_is_not_there_is_black(loaded: Callable[[str], tuple[AgeModel, str]]) -> None:
    model, _ = loaded("mivolo-d1")
    picture = official.picture(6, 224)
    picture[:, 3:] = 0
    with torch.inference_mode():
        age, _ = model.split(model(picture))
    assert age.item() == pytest.approx(-0.592855, abs=1e-4)


def test_numbers_that_came_with_weights_stay(loaded: Callable[[str], tuple[AgeModel, str]]) -> None:
    model, _ = loaded("volo-d1")
    model.head.init_from_ages(torch.tensor([5.0, 50.0]))
    assert model.head.decode(torch.tensor([[-1.0]])).age.item() == pytest.approx(-94 + 36.5)


@pytest.fixture(scope="module")
def fresh() -> Callable[[str], AgeModel]:
    """Models with random weights, made once: what is refused changes nothing in them."""
    return cache(lambda name: create_model(CARDS[name]))


NONE = {"norm.weight": torch.zeros(2)}  # what is refused before its tensors are looked at needs no more


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("swinface", lambda: official.mivolo(state_dict=NONE), "contains MiVOLO, which does not fit 'swinface'"),
        ("volo-d1", lambda: {"state_dict_backbone": {}}, "contains SwinFace, which does not fit 'volo-d1'"),
        ("volo-d1", lambda: {"weights": {}}, r"neither MiVOLO nor SwinFace.*Its keys: weights"),
        ("volo-d1", lambda: official.mivolo(state_dict=NONE), r"for faces and bodies\. Set --model mivolo-d1"),
        (
            "volo-d1",
            lambda: official.mivolo(bodies=False, state_dict=NONE, max_age="old"),
            "max_age is 'old'; a finite number is required",
        ),
        (
            "volo-d1",
            lambda: official.mivolo(bodies=False, state_dict=NONE, min_age=99),
            "min_age = 99 must be below max_age = 95",
        ),
        ("volo-d1", lambda: [1, 2], "a checkpoint is a dictionary"),
        ("volo-d1", lambda: official.mivolo(bodies=False, state_dict={"norm.weight": "x"}), "is a str, not a tensor"),
        ("swinface", lambda: {"state_dict_backbone": {}, "epoch": 1}, "the key 'state_dict_fam' is missing"),
    ],
)
def test_what_is_none_of_it_is_refused(
    name: str, content: Callable[[], Any], message: str, tmp_path: Path, fresh: Callable[[str], AgeModel]
) -> None:
    with pytest.raises(UserError, match=message):
        load_published(fresh(name), CARDS[name], saved(content(), tmp_path))


def test_tensors_that_are_missing_left_over_or_of_another_shape(
    tmp_path: Path, fresh: Callable[[str], AgeModel]
) -> None:
    content = official.mivolo(bodies=False)
    del content["state_dict"]["norm.weight"]
    content["state_dict"] |= {"extra.weight": torch.zeros(1), "head.bias": torch.zeros(5), "fds.table": torch.zeros(9)}
    model = fresh("volo-d1")
    before = model.backbone.trunk.cls_token.clone()
    with pytest.raises(UserError) as error:
        load_published(model, CARDS["volo-d1"], saved(content, tmp_path))
    assert "1 tensors are missing, first backbone.trunk.norm.weight" in str(error.value)
    assert "1 are not used, first extra.weight" in str(error.value)
    assert "is (3,) in the file and (1,) in the model" in str(error.value)
    assert (model.backbone.trunk.cls_token == before).all()


def test_weights_without_gender_say_the_age(tmp_path: Path) -> None:
    model = create_model(CARDS["volo-d1"])
    path = saved(official.mivolo(bodies=False, gender=False, avg_age=np.float64(40)), tmp_path)
    assert "mean 40, no gender" in str(load_published(model, CARDS["volo-d1"], path))


class Code:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, fresh: Callable[[str], AgeModel]) -> None:
    path, mark = tmp_path / "bad.pth.tar", tmp_path / "mark"
    torch.save({"min_age": Code(f"touch {mark}")}, path)
    with pytest.raises(UserError, match="code in checkpoints is not run"):
        load_published(fresh("volo-d1"), CARDS["volo-d1"], path)
    path.write_bytes(pickle.dumps(Code(f"touch {mark}")))
    with pytest.raises(UserError, match=r"bad\.pth\.tar"):
        load_published(fresh("volo-d1"), CARDS["volo-d1"], path)
    assert not mark.exists()


def test_another_head_has_no_published_weights(tmp_path: Path) -> None:
    card = CARDS["swinface"].model_copy(update={"head": "dldl-v2", "head_options": {}})
    with pytest.raises(UserError, match="need the head `normalised`, not 'dldl-v2'"):
        load_published(create_model(card), card, tmp_path / "any.pt")


@pytest.mark.slow
def test_their_weights_are_scored_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "few.toml").write_text(
        'name = "few"\ntitle = "Few"\nreader = "synth"\nlicence = "CC0-1.0"\nfaces = "none"\ngroups = ["gender"]\n'
        "[options]\ncount = 12\nseed = 3\n"
    )
    words = ["test", "--model", "swinface", "--pretrained", str(saved(official.swinface(), tmp_path)), "--test", "few"]
    more = ["--set", "evaluate.resamples=100", "--registry", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main([*words, *more]) == 0
    report = (tmp_path / "run" / "report.md").read_text()
    assert "its authors' weights, file theirs.pth.tar: 456 of 473 tensors loaded" in report
    assert "## Other attributes" in report
    assert (
        main(["test", "--config", str(tmp_path / "run" / "config.toml"), *more]) == 0
    )  # the same again: nothing to do


def test_only_the_zoo_has_published_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--model", "tiny", "--pretrained", "any.pt", "--test", "synth"]) == 2
    assert "--pretrained is for the built-in architectures" in capsys.readouterr().err
    assert main(["test", "--model", "swinface", "--pretrained", "gone.pt", "--test", "synth"]) == 2
    assert "gone.pt: the checkpoint does not exist" in capsys.readouterr().err
