"""A run as a repository's folder, and back; a server on this machine stands in for the hub."""

import contextlib
import functools
import io
import json
import shutil
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w
from huggingface_hub import ModelCard, constants
from PIL import Image

import agebench
from agebench.analysis.attribution.methods import NetworkTarget, select_methods
from agebench.cli import main
from agebench.errors import AgebenchError, UserError
from agebench.estimators import hub
from agebench.estimators.base import AgeEstimates
from agebench.hub import push
from agebench.hub.model_card import check_card
from agebench.runs.run_dir import RunDir
from agebench.training.dataloader import FaceDataset

pytestmark = pytest.mark.usefixtures("with_few")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "thisIsASecretOfSomebody"


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one's own, to push."""
    return Path(shutil.copytree(small_run, tmp_path_factory.mktemp("hub") / "run"))


@pytest.fixture(scope="module")
def made(run: Path, small_run: Path) -> Path:
    cards = ["--registry", str(small_run.parent / "registry")]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["push", str(run), "--repo", "me/ages", "--dry-run", "--json", *cards]) == 0
    told = json.loads(said.getvalue())
    assert told["folder"] == str(run / "hub")
    assert (told["repo"], told["commit"], told["address"]) == ("me/ages", None, None)
    assert sorted(told["files"]) == sorted(
        path.relative_to(run / "hub").as_posix() for path in (run / "hub").rglob("*") if path.is_file()
    )
    return run / "hub"


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub that has one repository, me/ages, in one commit."""

    def __init__(self, folder: Path, asked: list[str], *arguments: Any) -> None:
        self.folder, self.asked = folder, asked
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/api/models/me/ages"):
            files = [path for path in self.folder.rglob("*") if path.is_file()]
            siblings = [
                {"rfilename": path.relative_to(self.folder).as_posix(), "size": path.stat().st_size} for path in files
            ]
            self.answer(json.dumps({"id": "me/ages", "sha": COMMIT, "siblings": siblings}).encode())
            return
        name = self.path.removeprefix(f"/me/ages/resolve/{COMMIT}/")
        found = (self.folder / name).is_file()
        self.answer((self.folder / name).read_bytes() if found else b"", 200 if found else 404)

    do_HEAD = do_GET

    def answer(self, body: bytes, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{abs(hash(body)):x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """A copy of the repository's folder, and what was asked of the server that serves it."""
    folder, asked = tmp_path / "repository", list[str]()
    shutil.copytree(made, folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, folder, asked)) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield folder, asked
        server.shutdown()


def answers(model: Any) -> AgeEstimates:
    with agebench.load(model, device="cpu") as predictor:
        size = predictor.card.input.size
        return predictor.estimate(np.random.default_rng(0).integers(0, 255, (3, size, size, 3), dtype=np.uint8))


def test_the_cards_figures_are_the_runs(run: Path, made: Path) -> None:
    read = ModelCard.load(made / "README.md").data.eval_results
    mae = next(one for one in read if one.metric_type == "mae")
    own = RunDir(run).metrics()["tests"]["few"]["overall"]["mae"]
    assert mae.metric_value == round(own["value"], 4)
    assert f"95 % interval {own['ci_low']:.3f} to {own['ci_high']:.3f}" in mae.metric_name
    assert f"{own['value']:.2f} [{own['ci_low']:.2f}, {own['ci_high']:.2f}]" in (made / "README.md").read_text()


def test_the_card_says_for_whom_it_is_worse_and_what_it_is_not_for(made: Path) -> None:
    text = (made / "README.md").read_text()
    assert all(word in text for word in ("| gender", "| race", "| dark", "Not meant for decisions"))
    assert "Estimate ±" in text


def test_a_damaged_card_is_refused() -> None:
    good = "---\nmodel-index:\n- name: x\n  results: []\n---\n"
    check_card(good)
    for bad in ("---\nmodel-index:\n- name: x\n---\n", "---\nmodel-index: 3\n---\n", "---\nlicense: [\n---\n"):
        with pytest.raises(UserError, match="huggingface_hub refuses the card"):
            check_card(bad)
    with pytest.raises(UserError, match="other figures"):
        check_card(good, [("utk", "mae", "MAE", "5.0000")])


def test_the_folder_holds_no_labels_no_pickle_and_no_place_of_this_machine(run: Path, made: Path) -> None:
    files = [path for path in made.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".toml", ".json", ".safetensors", ".md", *push.EXPORTS}
    assert "export/model.ts" in {path.relative_to(made).as_posix() for path in files}
    for path in files:
        assert str(run.parent).encode() not in path.read_bytes()


def test_a_second_call_replaces_the_folder_and_touches_nobody_elses(
    run: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["push", str(run), "--repo", "me/ages", "--dry-run"]
    another = run / "export" / "model.int8.onnx"
    another.write_bytes(b"an export that the run has no more")
    assert main(words) == 0
    assert (made / "export" / "model.int8.onnx").exists()
    another.unlink()
    assert main(words) == 0
    assert not (made / "export" / "model.int8.onnx").exists()
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*words, "--out", str(tmp_path)]) == 2
    assert "notes.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_was_pushed_answers_as_the_run(run: Path, server: tuple[Path, list[str]]) -> None:
    asked = server[1]
    assert np.array_equal(answers(f"hf://me/ages@{COMMIT}").age, answers(run).age)
    assert not [path for path in asked if "export" in path]
    count = len(asked)
    answers(f"hf://me/ages@{COMMIT}")  # of a commit that is here, the hub need not be asked
    assert len(asked) == count


def test_the_command_takes_an_address(
    server: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (80, 80), (150, 120, 100)).save(tmp_path / "face.png")
    assert main(["predict", f"hf://me/ages@{COMMIT}", str(tmp_path / "face.png"), "--align", "none", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["faces"]
    assert row["low"] < row["age"] < row["high"]


def test_it_promises_what_the_run_promised(run: Path, server: tuple[Path, list[str]]) -> None:
    with agebench.load(f"hf://me/ages@{COMMIT}", device="cpu") as pushed, agebench.load(run, device="cpu") as own:
        assert pushed.interval(0.9) == own.interval(0.9)
        assert pushed.gate(18) == own.gate(18)
        assert pushed.errors() == own.errors()
        with pytest.raises(UserError, match=r"knows only 0\.5, 0\.8"):
            pushed.interval(0.77)


def test_an_open_pushed_model_is_stressed_on_the_whole_dataset(server: tuple[Path, list[str]], tmp_path: Path) -> None:
    with agebench.load_estimator(f"hf://me/ages@{COMMIT}", device="cpu") as pushed:
        found = agebench.stress(pushed, "few", corruptions=["blur"], resamples=0, device="cpu", out=tmp_path / "stress")
        faces = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
        target, methods, notes = select_methods(
            pushed.estimator, FaceDataset(faces, np.arange(4), np.full(4, 30, np.float32)), ["integrated-gradients"]
        )
    assert found.metrics.n == 180
    assert found.metrics.contamination == "known"
    assert isinstance(target, NetworkTarget)
    assert (methods, notes) == (["integrated-gradients"], [])


def test_without_a_commit_it_says_which_one_it_took(
    server: tuple[Path, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    answers("hf://me/ages")
    assert f"hf://me/ages@{COMMIT}" in caplog.text


@pytest.mark.parametrize("url", ["hf://me/ages@main", "hf://../x@" + COMMIT, "hf://ages", "hf://me/ages@abc", "hf://"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UserError):
        hub.fetch(url)


def test_too_large_a_file_is_not_fetched(server: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.FILES, "metrics.json", 10)
    with pytest.raises(UserError, match=r"metrics\.json has [\d,]+ bytes; 10 are allowed"):
        hub.fetch(f"hf://me/ages@{COMMIT}")
    assert not [path for path in server[1] if "resolve" in path]


def test_a_size_that_the_hub_does_not_say_is_one_error() -> None:
    with pytest.raises(UserError, match=r"does not state the size of config\.toml"):
        hub._check_sizes("hf://me/ages", dict.fromkeys(hub.FILES))


def test_what_an_earlier_model_had_in_export_goes(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = dict[str, Any]()

    class Api:
        def create_repo(self, *_: Any, **__: Any) -> None:
            """There is one."""

        def list_repo_files(self, *_: Any, **__: Any) -> list[str]:
            return [".gitattributes", "README.md", "card.json", "export/model.ts"]

        def upload_folder(self, **how: Any) -> Any:
            sent.update(how)
            return SimpleNamespace(oid=COMMIT)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.ModelCard.validate", lambda *_, **__: None)
    assert push.upload(made, "me/ages") == COMMIT
    assert sent["delete_patterns"] == ["export/*"]


def test_estimates_become_a_dataset_without_labels(
    run: Path, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = tmp_path / "registry" / "datasets"
    registry.mkdir(parents=True)
    card = tomllib.loads((small_run.parent / "registry" / "datasets" / "synth.toml").read_text())
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(registry.parent))
    words = ["push", str(run), "--repo", "me/estimates", "--predictions"]
    for public in (False, True):
        (registry / "few.toml").write_text(tomli_w.dumps(card | {"estimates_public": public}))
        assert main([*words, "--dry-run", "--out", str(tmp_path / "out")]) == (0 if public else 2)
    assert "estimates_public" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        ".agebench-push.json",
        "README.md",
        "few.parquet",
    ]

    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    read = datasets.load_dataset(str(tmp_path / "out"), "few", split="train", cache_dir=str(tmp_path / "cache"))
    own = pd.read_parquet(run / "predictions" / "few.parquet")
    assert {"key", "age_pred"} <= set(read.column_names) <= {"key", "age_pred", "age_std"}
    assert sorted(read["age_pred"]) == pytest.approx(sorted(own["age_pred"]), rel=1e-6)

    sent = dict[str, Any]()
    api = SimpleNamespace(
        create_repo=lambda *_, **how: sent.update(created=how["repo_type"]),
        list_repo_files=lambda *_, **__: there,
        upload_folder=lambda **how: sent.update(how) or SimpleNamespace(oid=COMMIT),
    )
    there = [".gitattributes", "card.json", "data/train.parquet"]
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    monkeypatch.setattr("huggingface_hub.DatasetCard.validate", lambda *_, **__: None)
    assert main(words) == 2
    assert "me/estimates: holds card.json, which `agebench push` did not write" in capsys.readouterr().err
    assert "folder_path" not in sent
    there = [".gitattributes", ".agebench-push.json", "data/few.parquet"]
    assert main(words) == 0
    assert f"hf://datasets/me/estimates@{COMMIT}" in capsys.readouterr().out
    assert (sent["created"], sent["repo_type"], sent["delete_patterns"]) == ("dataset", "dataset", ["data/*"])


@pytest.mark.parametrize("more", [[], ["--predictions"]])
def test_files_of_others_stay_though_they_have_the_names_of_ours(
    more: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "out" / ("data/train.parquet" if more else "export/model.onnx")
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"mine")
    assert main(["push", str(run), "--repo", "me/it", "--dry-run", "--out", str(tmp_path / "out"), *more]) == 2
    assert "which `agebench push` did not write" in capsys.readouterr().err
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [theirs]
    assert theirs.read_bytes() == b"mine"


def test_what_an_interrupted_call_left_is_no_file_of_others(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["push", str(run), "--repo", "me/it", "--dry-run", "--out", str(out)]
    assert main(words) == 0
    (out / ".metrics.json.agebench-abcd1234.tmp.json").write_bytes(b"{")
    assert main(words) == 0


def test_another_kind_of_repository_is_refused(server: tuple[Path, list[str]]) -> None:
    (server[0] / "config.toml").unlink()
    with pytest.raises(UserError, match="holds no config"):
        hub.fetch(f"hf://me/ages@{COMMIT}")


def test_weights_that_are_not_the_configs_are_refused_with_the_difference(server: tuple[Path, list[str]]) -> None:
    config = tomllib.loads((server[0] / "config.toml").read_text())
    config["model"]["head"] = "gaussian"
    (server[0] / "config.toml").write_text(tomli_w.dumps(config))
    with pytest.raises(UserError, match=r"checkpoint of another model: head\..* in the file and .* in the model"):
        agebench.load(f"hf://me/ages@{COMMIT}")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"backbone": "resnet101"}, r"another model: backbone\.\S+ is missing in the file"),
        ({"head": "drf", "head_options": {"depth": 7, "trees": 10**9}}, "trees = 1000000000"),
        ({"head": "drf", "head_options": {"depth": 40}}, "depth = 40"),
        ({"head_options": {"ages": [0, 10**12]}}, r"head_options\.ages is not an option"),
        ({"head": "quantile", "head_options": {"quantiles": "all"}}, "head 'quantile'"),
    ],
)
def test_a_config_that_asks_for_any_memory_is_refused_before_it_gets_it(
    model: dict[str, Any], said: str, server: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tomllib.loads((server[0] / "config.toml").read_text())
    config["model"] |= model
    (server[0] / "config.toml").write_text(tomli_w.dumps(config))
    monkeypatch.setattr("agebench.runs.loading.load_weights", lambda *_: pytest.fail("a model was allocated"))
    with pytest.raises(UserError, match=said):
        agebench.load(f"hf://me/ages@{COMMIT}")


def test_a_card_that_is_not_the_models_is_refused_with_the_differences(server: tuple[Path, list[str]]) -> None:
    card = json.loads((server[0] / "card.json").read_text())
    card["model"]["backbone"], card["output"]["std"] = "resnet50", True
    (server[0] / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"model.backbone is 'resnet50' on the card.*; output.std is True on the card"):
        agebench.load(f"hf://me/ages@{COMMIT}")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("promises", "intervals", "0.9", "radius"), "12", "radius = '12'"),
        (("promises", "errors"), 3, "errors = 3"),
        (("figures", "tests", "few", "overall", "mae", "value"), float("inf"), "value = inf"),
        (("figures", "tests", "few", "groups", "gender", "female", "n"), "<b>", "n = '<b>'"),
        (("figures", "tests", "few"), {"overall": {}}, r"figures\.tests\.few\.n' is missing"),
        (("training", "title"), ["UTKFace"], "title"),
        (("model",), [], r"model = \[\]"),
        (("input", "coverage"), 0, "input.coverage = 0"),
        (("input", "coverage"), "wide", "input.coverage = 'wide'"),
    ],
)
def test_a_card_that_says_nonsense_is_one_error(
    place: tuple[str, ...], value: Any, said: str, server: tuple[Path, list[str]]
) -> None:
    card = json.loads((server[0] / "card.json").read_text())
    at = card
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    (server[0] / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=said) as raised:
        agebench.load(f"hf://me/ages@{COMMIT}")
    assert "card.json" in str(raised.value)


@pytest.mark.parametrize("content", [b"\x80\x04damaged", b"[" * 100_000, b"[]"])
@pytest.mark.parametrize("name", [*hub.FILES])
def test_a_damaged_file_is_one_error(name: str, content: bytes, server: tuple[Path, list[str]]) -> None:
    (server[0] / name).write_bytes(content)
    with pytest.raises(AgebenchError, match=name):
        agebench.load(f"hf://me/ages@{COMMIT}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("manifest.json", {"model": {"classes": {"gender": 7}}}, "model.classes.gender = 7"),
        ("metrics.json", {"protocol": {"folds": "many"}}, "protocol.folds = 'many'"),
    ],
)
def test_what_else_is_used_of_a_repository_has_its_shape(
    name: str, content: dict[str, Any], said: str, server: tuple[Path, list[str]]
) -> None:
    (server[0] / name).write_text(json.dumps({"finished": True, **content}))
    with pytest.raises(UserError, match=said):
        agebench.load(f"hf://me/ages@{COMMIT}")


def test_no_token_is_printed_or_stored(
    run: Path, server: tuple[Path, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The stand-in takes no uploads: its answer is an error, and the request that it belongs to held the token."""
    assert main(["push", str(run), "--repo", "me/ages", "--out", str(tmp_path / "out")]) == 1
    assert main(["push", str(run), "--repo", "me/ages", "--dry-run", "--out", str(tmp_path / "out")]) == 0
    with pytest.raises(AgebenchError):
        hub.fetch("hf://me/others")
    answers("hf://me/ages")
    said = capfd.readouterr()
    assert "the upload failed" in said.err
    assert TOKEN not in said.out + said.err
    for path in [*run.rglob("*"), *tmp_path.rglob("*")]:
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


@pytest.mark.parametrize("repo", ["ages", "a/b/c", "me/..", "me/a b", "-me/ages"])
def test_bad_names_of_repositories(repo: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run), f"--repo={repo}", "--dry-run"]) == 2
    assert "no name of a repository" in capsys.readouterr().err


def test_only_finished_runs_are_pushed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(tmp_path), "--repo", "me/ages", "--dry-run"]) == 2
    assert "no finished run" in capsys.readouterr().err
