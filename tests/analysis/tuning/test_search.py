"""`agebench tune` on a small generated set, through the real command; and its parts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from factories import few_card

from agebench.analysis.tuning import diagnostics
from agebench.analysis.tuning import search as search_module
from agebench.analysis.tuning import trials as trials_module
from agebench.analysis.tuning.context import SearchContext, prepare_context
from agebench.analysis.tuning.diagnostics import ema, suggest_lr
from agebench.analysis.tuning.report import _plot_overfit
from agebench.analysis.tuning.schema import InitialLoss, OverfitResult, RangeTestResult
from agebench.analysis.tuning.trials import override_recipe, trial_config
from agebench.cli import main
from agebench.errors import TrainingDivergedError
from agebench.registry.catalog import load_catalog
from agebench.runs.resolve import resolve_config
from agebench.training.trainer import Trainer

CARD = few_card(150, groups=["gender", "race"], seed=11)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    (folder / "datasets").mkdir()
    (folder / "datasets" / "few.toml").write_text(CARD)
    return folder


def command(registry: Path, out: Path, *more: str) -> list[str]:
    words = ["tune", "--train", "few", "--model", "tiny", "--epochs", "2", "--images", "64", "--trial-epochs", "1"]
    small = ["--set", "model.size=32", "--set", "train.batch_size=16", "--rates", "0.001,0.01", "--decays", "0,0.05"]
    return [*words, *small, "--set", "evaluate.resamples=100", "--registry", str(registry), "--out", str(out), *more]


def small_context(registry: Path, folder: Path, model: dict[str, object], recipe: dict[str, object]) -> SearchContext:
    """Return the data and settings of a search with a tiny model."""
    cards = load_catalog([registry])
    layers = [
        {"data": {"train": "few", "test": ["few"]}, "model": {"name": "tiny", "size": 32} | model, "train": recipe}
    ]
    return prepare_context(resolve_config(cards, layers), cards, folder, images=64)


@pytest.mark.slow
def test_the_whole_search(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "search"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # killed in the second trial
        whole, done = trials_module.fit, []
        patched.setattr(
            trials_module,
            "fit",
            lambda *args, **options: stop() if done else done.append(1) or whole(*args, **options),
        )
        assert main(command(registry, out)) == 130
    assert len(list(out.glob("trials/*/result.json"))) == 1
    first = next(out.glob("trials/*/result.json")).stat().st_mtime_ns
    capsys.readouterr()
    assert main(command(registry, out)) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main(command(registry, out, "--resume", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert min(file.stat().st_mtime_ns for file in out.glob("trials/*/result.json")) == first

    assert found["images"]["trial"] == 64
    assert {(trial["lr"], trial["weight_decay"]) for trial in found["trials"]} == {
        (0.001, 0.0), (0.001, 0.05), (0.01, 0.0), (0.01, 0.05)
    }  # fmt: skip
    assert found["best"]["val_mae"] == min(trial["val_mae"] for trial in found["trials"])
    assert len(pd.read_csv(out / "trials.csv")) == 4
    assert (out / "report.html").stat().st_size > 10_000
    assert not list(out.glob("trials/*/checkpoints"))
    assert list(out.glob("tensorboard/untrained/*"))

    # Finished: nothing is done again; other settings are refused.
    assert main(command(registry, out)) == 0
    assert "finished" in capsys.readouterr().err
    assert main(command(registry, out, "--seed", "4")) == 2
    assert "other settings" in capsys.readouterr().err

    # The config is one that `run` takes, and the long run's weights are tested without training again.
    before = json.loads((out / "run" / "history.json").read_text())
    words = [
        "run",
        "--config",
        str(out / "best.toml"),
        "--out",
        str(out / "run"),
        "--resume",
        "--registry",
        str(registry),
    ]
    assert main(words) == 0
    assert json.loads((out / "run" / "history.json").read_text()) == before
    assert (out / "run" / "metrics.json").exists()


def test_no_test_image_is_read(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = load_catalog([registry])
    config = resolve_config(
        cards, [{"data": {"train": "few", "test": ["few", "synth"]}, "model": {"name": "tiny", "size": 32}}]
    )
    ground = prepare_context(config, cards, tmp_path, images=64)
    assert ground.division.tests == {}
    kept = {*ground.division.train.table["sample_id"], *ground.division.val.table["sample_id"]}
    assert len(kept) == len(ground.division.train) + len(ground.division.val) < 150
    assert len(ground.subset.train) == 64
    assert {*ground.subset.train.table["sample_id"]} <= {*ground.division.train.table["sample_id"]}


def test_a_small_subset_is_overfitted_without_regularization(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regularized = {
        "frozen_layers": 2,
        "label_smoothing": 3.0,
        "age_balance": 1.0,
        "ema_decay": 0.9,
        "weight_decay": 0.1,
    }
    context = small_context(registry, tmp_path, {"head": "classification"}, regularized)
    assert context.build_model().head.label_std == 3
    trainers = []

    def observed(*arguments: Any, **options: Any) -> Trainer:
        trainers.append(Trainer(*arguments, **options))
        return trainers[-1]

    monkeypatch.setattr(diagnostics, "Trainer", observed)
    result = diagnostics.overfit_small_subset(context, epochs=1)
    assert len(result.curve) == 1
    (trainer,) = trainers
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    assert trainer.model.head.label_std == 0
    assert not trainer.recipe.model_dump().keys() & (regularized.keys() - {"weight_decay"})


DIVERGES = {"lr": 1e12, "clip": 0, "optimiser": "sgd", "momentum": 0}


def test_a_small_subset_that_diverges_is_a_verdict(registry: Path, tmp_path: Path) -> None:
    context = small_context(registry, tmp_path, {"head": "regression", "head_options": {"loss": "l2"}}, DIVERGES)
    result = diagnostics.overfit_small_subset(context, epochs=2)
    assert not result.good
    assert result.mae is None
    assert "diverged after 0 of 2 epochs, at a learning rate of 1e+12" in result.verdict
    assert OverfitResult.model_validate(json.loads(json.dumps(result.to_json(), allow_nan=False))) == result
    assert _plot_overfit(result) is not None


def test_a_full_training_that_diverges_names_what_can_be_changed(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = {"good": True, "verdict": ""}
    untrained = InitialLoss(
        losses=[1.0], expected=[1.0], loss=1.0, should_be=1.0, mae=9.0, mae_of_the_median=9.0, **skipped
    )
    overfitted = OverfitResult(images=8, curve=[], mae=1.0, mae_of_the_median=9.0, **skipped)
    tested = RangeTestResult(rates=[], losses=[], suggested=0.003, **skipped)
    monkeypatch.setattr(diagnostics, "check_initial_loss", lambda context: untrained)
    monkeypatch.setattr(diagnostics, "overfit_small_subset", lambda context: overfitted)
    monkeypatch.setattr(diagnostics, "lr_range_test", lambda context: tested)

    def diverges(*_: object, **__: object) -> None:
        raise TrainingDivergedError("the loss is nan in epoch 2, step 3: training has diverged. Try --set train.clip=1")

    monkeypatch.setattr(search_module, "fit", diverges)
    out = tmp_path / "search"
    assert main(command(registry, out, "--rates", "0.003", "--decays", "0.05")) == 1
    message = capsys.readouterr().err
    assert "diverged: the loss is nan in epoch 2, step 3. Train with a lower rate" in message
    assert f"agebench run --config {out / 'best.toml'} --set train.lr=0.001." in message
    assert "search a grid of lower --rates, such as 0.0003,0.001, in another folder with --out" in message
    assert (out / "best.toml").exists()


def test_optuna_asks_the_same_again(registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    from agebench.analysis.tuning import search as module

    cards = load_catalog([registry])
    config = resolve_config(cards, [{"data": {"train": "few", "test": ["few"]}, "model": {"name": "tiny", "size": 32}}])
    search = module.TuneConfig(images=32, epochs=1, search="optuna", trials=2, run=config)
    ground = prepare_context(config, cards, tmp_path, images=32)
    first = module._by_optuna(ground, search, 0.001)
    assert module._by_optuna(ground, search, 0.001) == first
    assert len(first) == 2


@pytest.mark.parametrize(("epochs", "head_epochs"), [(1, 0), (2, 0), (5, 1), (10, 2)])
def test_trials_of_the_default_model_do_not_train_the_head_alone(registry: Path, epochs: int, head_epochs: int) -> None:
    config = resolve_config(load_catalog([registry]), [{"data": {"train": "few", "test": ["few"]}}])
    assert (config.train.head_epochs, config.train.epochs) == (1, 5)
    trial = trial_config(config, 0.01, 0.2, epochs)
    assert (trial.train.epochs, trial.train.head_epochs) == (epochs, head_epochs)
    assert (trial.train.lr, trial.train.weight_decay) == (0.01, 0.2)
    set_by_trial = {"epochs", "head_epochs", "lr", "weight_decay"}
    assert trial.train.model_dump(exclude=set_by_trial) == config.train.model_dump(exclude=set_by_trial)
    assert trial.model_copy(update={"train": config.train}) == config
    with pytest.raises(ValueError, match="head_epochs = 1 leaves none of the 1 epochs"):
        override_recipe(config, epochs=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train", "nosuch"], "no dataset called 'nosuch'"),
        (["--train", "few", "--rates", "fast"], "--rates fast"),
        (["--train", "few", "--rates=-1"], "out of range"),
        (["--train", "few", "--images", "3"], "images = 3"),
        (["--train", "few", "--search", "optuna", "--rates", "0.001"], "--rates has no effect on --search optuna"),
        (["--train", "few", "--search", "optuna", "--decays", "0,0.1"], "--decays has no effect on --search optuna"),
        (["--train", "few", "--trials", "16"], "--trials has no effect on --search grid"),
        (["--train", "few", "--set", "train.lr=fast"], "train.lr = 'fast'"),
    ],
)
def test_a_mistake_writes_nothing(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    out = tmp_path / "search"
    assert main(["tune", *words, "--registry", str(registry), "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_the_range_tests_suggestion() -> None:
    rates = np.geomspace(1e-6, 1, 100)
    losses = 3 - 1.5 / (1 + (1e-3 / rates) ** 1.5) + np.where(rates > 0.1, 20 * (rates - 0.1), 0)
    suggested, falls = suggest_lr(rates, [*losses])
    assert falls
    assert 3e-3 < suggested < 3e-2
    assert not suggest_lr(rates, [*(3 + 0.01 * np.sin(np.arange(100)))])[1]
    assert ema([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
