"""A suite becomes runs, and what stands on the disk is known."""

import json
import math
from pathlib import Path

import pytest

from agebench.config.cards.suite import SuiteCard
from agebench.errors import UserError
from agebench.registry.catalog import load_catalog
from agebench.suites.matrix import Job, config_hash, count_runs, expected_seconds, plan_jobs

CARDS = load_catalog()


def suite(**changes: object) -> SuiteCard:
    return SuiteCard.model_validate(
        {"name": "mine", "title": "Mine", "train": ["synth"], "test": ["synth"], "models": ["tiny"], **changes}
    )


def test_the_matrix_is_whole(tmp_path: Path) -> None:
    jobs = plan_jobs(suite(train=["synth", "synth-shift"], heads=["coral", "dldl"], seeds=[0, 1]), CARDS, tmp_path)
    assert len({job.folder for job in jobs}) == 8
    assert {(job.config.data.train, job.config.model.head, job.config.seed) for job in jobs} == {
        (train, head, seed) for train in ("synth", "synth-shift") for head in ("coral", "dldl") for seed in (0, 1)
    }
    assert all(job.state() == "pending" for job in jobs)


def test_variants_are_laid_over_one_by_one(tmp_path: Path) -> None:
    small = {"name": "small", "settings": {"model": {"size": 32}}}
    plain, smaller = plan_jobs(suite(variants=[{"name": "plain", "settings": {}}, small]), CARDS, tmp_path)
    assert (plain.variant, plain.config.model.size) == ("plain", 64)
    assert (smaller.variant, smaller.config.model.size) == ("small", 32)


@pytest.mark.parametrize("name", CARDS.suites.names())
def test_shipped_suites_can_be_planned(name: str, tmp_path: Path) -> None:
    card = CARDS.suites.get(name)
    jobs = plan_jobs(card, CARDS, tmp_path)
    asked = [card.train, card.models, card.seeds, card.heads or "1", card.variants or "1", card.protocols or "1"]
    assert len(jobs) == math.prod(map(len, asked))


def test_each_protocol_is_a_run_and_the_default_one_is_the_run_of_always(tmp_path: Path) -> None:
    jobs = plan_jobs(suite(protocols=["default", "five-fold"]), CARDS, tmp_path)
    assert [job.config.data.protocol for job in jobs] == ["", "five-fold"]
    assert jobs[0] == plan_jobs(suite(), CARDS, tmp_path)[0]
    assert "protocol" not in jobs[0].config.to_toml()
    assert jobs[1].folder.name.startswith("synth-five-fold-tiny-")
    with pytest.raises(UserError, match="dataset 'synth' has no protocol 'five-folds'; did you mean 'five-fold'"):
        plan_jobs(suite(protocols=["five-folds"]), CARDS, tmp_path)


def test_plan_of_too_many_runs_is_refused_before_any_is_planned(tmp_path: Path) -> None:
    many = suite(seeds=list(range(200_000)), heads=["coral", "dldl"])
    with pytest.raises(UserError, match=r"suite 'mine' asks for 400,000 runs, .* shorten `seeds` \(200,000 entries\)"):
        plan_jobs(many, CARDS, tmp_path)


def test_count_is_the_number_of_planned_runs(tmp_path: Path) -> None:
    variants = [{"name": "plain", "settings": {}}, {"name": "small", "settings": {"model": {"size": 32}}}]
    card = suite(protocols=["default", "five-fold"], seeds=[0, 1, 2], variants=variants)
    assert count_runs(card) == len(plan_jobs(card, CARDS, tmp_path)) == 12


def test_without_heads_each_model_has_its_own(tmp_path: Path) -> None:
    assert plan_jobs(suite(), CARDS, tmp_path)[0].config.model.head == "regression"


def test_one_run_has_one_folder_whatever_suite_asks_for_it(tmp_path: Path) -> None:
    one = plan_jobs(suite(name="one", seeds=[0, 1]), CARDS, tmp_path)[1]
    other = plan_jobs(suite(name="other", seeds=[1]), CARDS, tmp_path)[0]
    assert one == other


def test_whatever_decides_the_result_changes_the_folder(tmp_path: Path) -> None:
    settings = [{}, {"train": {"lr": 0.01}}, {"faces": {"coverage": 1.2}}, {"pretrained": "timm"}, {"seed": 3}]
    folders = {plan_jobs(suite(), CARDS, tmp_path, [setting])[0].folder for setting in settings}
    assert len(folders) == len(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": ["sinth"]}, "did you mean 'synth'"),
        ({"models": ["tinny"]}, "did you mean 'tiny'"),
        ({"settings": {"train": {"epoch": 3}}}, "did you mean 'epochs'"),
    ],
)
def test_a_suite_of_unknown_things_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        plan_jobs(suite(**changes), CARDS, tmp_path)


def pretend_done(job: Job, seconds: float, epochs: int) -> None:
    job.folder.mkdir(parents=True)
    (job.folder / "config.toml").write_text(job.config.to_toml())
    manifest = {"finished": True, "epochs": epochs, "timings": {"total_s": seconds}}
    (job.folder / "manifest.json").write_text(json.dumps(manifest))


def test_time_is_expected_from_runs_that_are_alike(tmp_path: Path) -> None:
    done, *rest = plan_jobs(suite(seeds=[0, 1, 2]), CARDS, tmp_path, [{"train": {"epochs": 4}}])
    assert expected_seconds(rest, tmp_path) is None
    pretend_done(done, seconds=40, epochs=4)
    assert done.state() == "done"
    assert expected_seconds(rest, tmp_path) == 80
    longer = plan_jobs(suite(), CARDS, tmp_path, [{"train": {"epochs": 8}}])
    assert expected_seconds(longer, tmp_path) == 80
    other = plan_jobs(suite(train=["synth-shift"]), CARDS, tmp_path)
    assert expected_seconds([*rest, *other], tmp_path) is None


def test_an_identity_is_the_same_on_every_machine(tmp_path: Path) -> None:
    config = plan_jobs(suite(), CARDS, tmp_path)[0].config
    assert config_hash(config) == config_hash(type(config).model_validate(config.model_dump()))
