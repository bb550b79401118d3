"""Damage valid cards, tables, records and run folders at random: each must be read, or refused with a message.

    python benchmarks/robustness/fuzz.py --count 10000 [--kind card] [--seed 0]

One case in eight is undamaged and must be read. The case of a failing input is printed with the command that repeats it.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import math
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agebench.errors import AgebenchError

ROOT = Path(__file__).parents[2]
LIMIT_S = 20  # of computing time for one input; the first imports what it needs
DEEP = "@deep@"  # stands for a list that is nested too deeply to be written as a value


@dataclass(frozen=True)
class Outcome:
    """Result of one input: `read`, `refused` with a message, or `failed` with a traceback."""

    state: str
    message: str = ""


class Overdue(BaseException):
    """An input took more than its time."""


ODD: tuple[Any, ...] = (
    *(True, False, 0, -1, 1, 7, 10**9, 2**63 - 1, 10**30, 0.5, -0.0, 1e-300, 1e308, math.nan, math.inf, -math.inf),
    *("", " ", "nan", "NA", "x" * 5000, "\x1b[31mred\n", "\x00", "../../x", "/dev/zero", "=1+1", "é\u202e", "[[", DEEP),
    *([], {}, [[]], [None], ["a", 1], {"a": {}}, {"": 0}, [1.5] * 200, None),
)


def _nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*path, key)
        yield from _nodes(below, (*path, key))


def mutate_tree(rng: random.Random, content: Any) -> Any:
    """Change one to three places of a tree of tables and lists: delete, duplicate, rename, replace, or exchange."""
    content = json.loads(json.dumps(content))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        paths = list(_nodes(content))
        if not paths:
            return rng.choice(ODD)
        *above, key = rng.choice(paths)
        parent = content
        for part in above:
            parent = parent[part]
        match rng.randrange(6):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.insert(key, parent[key])
            case 2 if isinstance(parent, dict):
                parent[rng.choice((key + "x", key.upper(), "", "extends", "name", "\x1b", "a" * 300))] = parent.pop(key)
            case 3:
                parent[key] = [parent[key]] if rng.random() < 0.5 else {"a": parent[key]}
            case 4:
                parent[key] = str(parent[key])
            case _:
                parent[key] = rng.choice(ODD)
    return content


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Damage a file as disks, networks and editors do."""
    data = bytearray(content)
    at = rng.randrange(len(data)) if data else 0
    end = min(len(data), at + rng.choice((1, 2, 10, 100, 1000)))
    match rng.randrange(10):
        case 0 | 1 | 2:
            for _ in range(rng.choice((1, 2, 8, 64))):
                if data:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 3:
            del data[at:]
        case 4:
            del data[at:end]
        case 5:
            data[at:at] = data[at:end]
        case 6:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
        case 7:
            return b""
        case 8:
            return content.decode("utf-8", errors="replace").encode(rng.choice(("utf-16", "utf-8-sig", "utf-32")))
        case _:
            data[at:at] = rng.choice(
                (b"\x00", b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b"\r", b'"', b"\xff\xfe", b"a" + b".a" * 5000)
            )
    return bytes(data)


def as_json(content: Any) -> bytes:
    """JSON, with the deep list where it is meant."""
    return json.dumps(content).replace(f'"{DEEP}"', "[" * 3000 + "]" * 3000).encode()


def as_toml(content: dict[str, Any]) -> bytes:
    """TOML, with the deep list where it is meant; what TOML cannot hold is left out."""
    import tomli_w

    def held(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): held(inner) for key, inner in value.items() if inner is not None}
        return [held(inner) for inner in value if inner is not None] if isinstance(value, list) else value

    text = tomli_w.dumps(held(content))
    return text.replace(f'"{DEEP}"', "[" * 3000 + "]" * 3000).encode("utf-8", errors="surrogatepass")


class Cards:
    """Cards of datasets, models, external models and suites: each is good, or listed as broken."""

    def __init__(self, scratch: Path) -> None:
        from agebench.registry.catalog import load_catalog

        folders = ((ROOT / "registry", ("datasets", "models")), (ROOT / "benchmarks", ("suites",)))
        self.bases = [
            (kind, path.read_text(encoding="utf-8"))
            for root, kinds in folders
            for kind in kinds
            for path in sorted((root / kind).glob("*.toml"))
        ]
        self.folder = scratch / "cards"
        self.shipped = load_catalog()

    def run(self, rng: random.Random, *, valid: bool) -> Outcome:
        """Write a card, and use it where it is good."""
        kind, base = rng.choice(self.bases)
        if valid or rng.random() < 0.6:
            content = tomllib.loads(base)
            content = content if valid else mutate_tree(rng, content)
            written = as_toml(content) if isinstance(content, dict) else b""
        else:
            written = mutate_bytes(rng, base.encode())
        file = self.folder / kind / "fuzzed.toml"
        shutil.rmtree(self.folder, ignore_errors=True)
        file.parent.mkdir(parents=True)
        file.write_bytes(written)
        self._copy_bases(base, kind)
        registry = self._registry(kind, file.parent)
        good = [name for name in registry.names() if registry.origin(name) == str(file)]
        for name in good:
            _use_card(kind, registry.get(name), dataclasses.replace(self.shipped, **{kind: registry}))
        return Outcome("read") if good else Outcome("refused", next(iter(registry.broken().values()), ""))

    def _copy_bases(self, text: str, kind: str) -> None:
        """Put the cards that a card extends beside it."""
        while base := tomllib.loads(text).get("extends"):
            text = next(known for kind_, known in self.bases if kind_ == kind and tomllib.loads(known)["name"] == base)
            (self.folder / kind / f"{base}.toml").write_text(text, encoding="utf-8")

    def _registry(self, kind: str, folder: Path) -> Any:
        from agebench.config.cards.dataset import DatasetCard
        from agebench.config.cards.model import ModelCard
        from agebench.config.cards.suite import SuiteCard
        from agebench.registry import catalog
        from agebench.registry.registry import Registry

        registry: Registry[Any] = Registry(kind.removesuffix("s"))
        card = {"datasets": DatasetCard, "models": ModelCard, "suites": SuiteCard}[kind]
        catalog._read_cards([folder], card, registry)  # the shipped cards beside it would take a hundred times as long
        return registry


def _use_card(kind: str, card: Any, cards: Any) -> None:
    import tomli_w

    from agebench.config.cards.external import ExternalCard
    from agebench.config.run import RunConfig
    from agebench.runs.resolve import resolve_config
    from agebench.suites.matrix import count_runs, plan_jobs

    content = card.model_dump(mode="json", exclude_none=True)
    json.dumps(content, allow_nan=False)
    tomli_w.dumps(content)
    with contextlib.suppress(AgebenchError):
        if kind == "datasets":
            from agebench.data.readers import open_reader

            for protocol in card.protocols:
                protocol.to_text()
            with tempfile.TemporaryDirectory() as empty:
                reader = open_reader(card.reader, Path(empty), card.groups, card.options, source="card")
                if reader.needs_files:  # others draw thousands of faces
                    reader.read()
        elif kind == "models" and not isinstance(card, ExternalCard):
            config = resolve_config(cards, [{"model": {"name": card.name}, "data": {"train": "utk", "test": ["utk"]}}])
            assert RunConfig.model_validate(tomllib.loads(config.to_toml())) == config
        elif kind == "suites" and count_runs(card) <= 100:
            plan_jobs(card, cards, Path("runs"))


class Tables:
    """Predictions for `agebench score`, and labels of a dataset beside its images."""

    def __init__(self, scratch: Path) -> None:
        from PIL import Image

        rng = random.Random(0)
        head = "sample_id,age,age_pred,age_std,gender,subject"
        rows = [
            f"{number:03}.png,{rng.randrange(90)},{rng.uniform(0, 90):.2f},{rng.uniform(1, 9):.2f},"
            f"{rng.choice(('female', 'male'))},p{number // 2}"
            for number in range(24)
        ]
        self.predictions = "\n".join([head, *rows, ""])
        self.labels = "\n".join(
            ["path,age,gender,subject", *(f"{r.split(',')[0]},{r.split(',')[1]},m,s" for r in rows), ""]
        )
        self.folder, self.file = scratch / "images", scratch / "predictions"
        self.folder.mkdir()
        for number in range(24):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(self.folder / f"{number:03}.png")

    def run(self, rng: random.Random, *, valid: bool) -> Outcome:
        """Write a table, and score it or read it as labels."""
        scored, self.resamples = rng.random() < 0.5, rng.choice((0, 0, 0, 100))
        text = self.predictions if scored else self.labels
        content = text.encode() if valid else mutate_bytes(rng, text.encode()) if rng.random() < 0.4 else b""
        suffix = rng.choice((".csv", ".parquet", ".tsv")) if scored else ".csv"
        if valid or not content:
            frame = self._frame(rng, text, valid=valid)
            content = _parquet(frame) if suffix == ".parquet" else _separated(frame, "\t" if suffix == ".tsv" else ",")
            if suffix == ".parquet" and not valid and rng.random() < 0.5:
                content = mutate_bytes(rng, content)
        return self._score(content, suffix) if scored else self._read(content)

    def _frame(self, rng: random.Random, text: str, *, valid: bool) -> Any:
        import pandas as pd

        frame = pd.read_csv(io.StringIO(text))
        if valid:
            return frame
        for _ in range(rng.choice((1, 1, 2, 4))):
            column = rng.choice(list(frame.columns)) if len(frame.columns) else "age"
            match rng.randrange(7):
                case 0:
                    frame = frame.drop(columns=column, errors="ignore")
                case 1:
                    frame = pd.concat([frame, frame.iloc[: rng.randrange(1, 24)]], ignore_index=True)
                case 2:
                    frame = frame.rename(
                        columns={column: rng.choice(("age", "path", "", "p", "mae", "age_band", "=1", "x\ny"))}
                    )
                case 3:
                    frame = frame.iloc[: rng.randrange(3)]
                case 4:
                    frame = frame.assign(**{column: [rng.choice(ODD)] * len(frame)})
                case _:
                    if len(frame) and column in frame and isinstance(frame[column], pd.Series):
                        values = list(frame[column])
                        values[rng.randrange(len(values))] = rng.choice(ODD)
                        frame = frame.assign(**{column: pd.Series(values, dtype="object", index=frame.index)})
        return frame

    def _score(self, content: bytes, suffix: str) -> Outcome:
        from agebench.metrics.prediction_io import read_predictions
        from agebench.metrics.scoring import ScoreOptions, score_predictions
        from agebench.reports.sections.evaluation import score_text

        file = self.file.with_suffix(suffix)
        file.write_bytes(content)
        joined = read_predictions(file)
        if len(joined.table) < 2:
            return Outcome("refused", "one row")
        metrics = score_predictions("fuzzed", [joined], ScoreOptions(resamples=self.resamples))
        json.dumps(metrics.to_json(), allow_nan=False)
        score_text(metrics)
        return Outcome("read")

    def _read(self, content: bytes) -> Outcome:
        from agebench.data.readers import open_reader

        (self.folder / "labels.csv").write_bytes(content)
        samples = open_reader("csv", self.folder, ("gender",), {}, source="card").read()
        return Outcome("read" if len(samples) else "refused", "no sample")


def _parquet(frame: Any) -> bytes:
    out = io.BytesIO()
    frame = frame.loc[:, ~frame.columns.duplicated()]
    try:
        frame.to_parquet(out, index=False)
    except Exception:  # of columns of mixed types, or with lone surrogates
        out = io.BytesIO()
        text = frame.astype("object").map(lambda value: repr(value).encode("ascii", "backslashreplace").decode())
        text.to_parquet(out, index=False)
    return out.getvalue()


def _separated(frame: Any, separator: str) -> bytes:
    text: str = frame.to_csv(index=False, sep=separator)
    return text.encode("utf-8", errors="surrogatepass")


class Records:
    """Records of runs: `results check`, `leaderboard` and its page."""

    def __init__(self, scratch: Path) -> None:
        files = sorted((ROOT / "reports" / "results").glob("*.json"), key=lambda path: path.stat().st_size)
        self.bases = [json.loads(path.read_bytes()) for path in (*files[:3], files[-1])]
        self.file = scratch / "records" / "fuzzed.json"
        self.file.parent.mkdir()

    def run(self, rng: random.Random, *, valid: bool) -> Outcome:
        """Write a record, and check and rank it."""
        from agebench.leaderboard.markdown import group_into_systems, leaderboard, result_matrix
        from agebench.leaderboard.records import content_hash, read_records
        from agebench.leaderboard.schema import parse_record
        from agebench.leaderboard.site import site_data
        from agebench.leaderboard.verify import check_record

        base = rng.choice(self.bases)
        if valid:
            self.file.write_bytes(as_json(base))
        elif rng.random() < 0.7:
            content = mutate_tree(rng, base)
            if isinstance(content, dict) and rng.random() < 0.8:
                with contextlib.suppress(ValueError, RecursionError):
                    content["sha256"] = content_hash(content)
            self.file.write_bytes(as_json(content))
        else:
            self.file.write_bytes(mutate_bytes(rng, as_json(base)))
        records = read_records(self.file.parent)
        record = records[self.file]
        problems = list(check_record(record))
        if problems:
            for problem in problems:
                assert problem.isprintable(), problem
            return Outcome("refused", problems[0])
        rows = group_into_systems(parse_record(each, self.file) for each in (*self.bases[:2], record))
        leaderboard(rows)
        result_matrix(rows, list(dict.fromkeys(test for row in rows for test in row.tests)))
        json.dumps(site_data(rows, ()), allow_nan=False)
        return Outcome("read")


class Runs:
    """Folders of finished runs: their state, record, model, test set and report."""

    CARD = 'name = "few"\ntitle = ""\nreader = "synth"\nlicence = "x"\nfaces = "none"\n[options]\ncount = 80\n'

    def __init__(self, scratch: Path) -> None:
        from agebench.cli import main
        from agebench.registry.catalog import load_catalog

        self.registry, self.base, self.folder = scratch / "registry", scratch / "base", scratch / "run"
        (self.registry / "datasets").mkdir(parents=True)
        (self.registry / "datasets" / "few.toml").write_text(self.CARD)
        words = ["run", "--train", "few", "--test", "few", "--model", "tiny", "--epochs", "1", "--out", str(self.base)]
        settings = ["--set", "model.size=32", "--set", "evaluate.resamples=100", "--registry", str(self.registry)]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main([*words, *settings]) == 0
        self.catalog, self.reported = load_catalog([self.registry]), False
        self.files = sorted(
            path.relative_to(self.base)
            for path in self.base.rglob("*")
            if path.is_file() and path.suffix in (".json", ".toml", ".parquet", ".safetensors")
        )

    def run(self, rng: random.Random, *, valid: bool) -> Outcome:
        """Damage a copy of the run, and read it in all ways."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.base, self.folder)
        for _ in range(0 if valid else rng.choice((1, 1, 2))):
            self._damage(rng, self.folder / rng.choice(self.files))
        refused = ""
        # Reports take the most time, and those of undamaged runs are alike.
        steps, reported = (
            [self._state, self._record, self._model],
            rng.random() < 0.05 if not valid else not self.reported,
        )
        if reported:
            self.reported = self.reported or valid
            steps.append(self._report)
        for step in steps:
            try:
                step()
            except AgebenchError as error:
                refused = refused or str(error)
        return Outcome("refused", refused) if refused else Outcome("read")

    def _damage(self, rng: random.Random, file: Path) -> None:
        if not file.is_file():
            return
        content = file.read_bytes()
        if rng.random() < 0.08:
            file.unlink()
        elif file.suffix in (".json", ".toml") and rng.random() < 0.6:
            try:
                table = json.loads(content) if file.suffix == ".json" else tomllib.loads(content.decode())
            except (ValueError, RecursionError):  # damaged before
                return
            changed = mutate_tree(rng, table)
            if file.suffix == ".toml" and not isinstance(changed, dict):
                changed = {}
            file.write_bytes(as_json(changed) if file.suffix == ".json" else as_toml(changed))
        else:
            file.write_bytes(mutate_bytes(rng, content))

    def _state(self) -> None:
        from agebench.runs.run_dir import RunDir

        folder = RunDir(self.folder)
        folder.started(), folder.manifest(), folder.metrics()
        folder.finished(folder.config())

    def _record(self) -> None:
        from agebench.leaderboard.records import make_record
        from agebench.leaderboard.verify import check_record

        record = make_record(self.folder, {"few": self.catalog.datasets.get("few")})
        problems = list(check_record(record, self.folder))
        if problems:
            raise AgebenchError(problems[0])

    def _model(self) -> None:
        from agebench.runs.loading import load_run, load_test_set
        from agebench.runs.run_dir import RunDir

        folder = RunDir(self.folder)
        config, _ = load_run(folder, "cpu", trusted=False)
        load_test_set(config, folder, self.catalog, "few")

    def _report(self) -> None:
        from agebench.reports.run import write_report

        write_report(self.folder)


KINDS: dict[str, Callable[[Path], Any]] = {"card": Cards, "table": Tables, "record": Records, "run": Runs}


def cases(kind: str, seed: int, count: int, scratch: Path) -> Iterator[tuple[int, Outcome]]:
    """Run `count` inputs of a kind; yields each one's own seed, and its outcome.

    An input depends on the kind and on its own seed alone: `seed`, `seed + 1`, and on.
    """
    home = scratch / kind
    home.mkdir(parents=True)
    target = KINDS[kind](home)
    for own in range(seed, seed + count):
        rng = random.Random(f"{kind} {own}")
        yield own, _outcome(target, rng, valid=rng.random() < 0.125)


def _outcome(target: Any, rng: random.Random, *, valid: bool) -> Outcome:
    timed = hasattr(signal, "SIGPROF")
    if timed:  # not SIGALRM, which ends matches that take too long
        previous = signal.signal(signal.SIGPROF, _overdue)
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        outcome: Outcome = target.run(rng, valid=valid)
    except AgebenchError as error:
        outcome = Outcome("refused", str(error))
    except (Exception, Overdue, SystemExit):
        return Outcome("failed", traceback.format_exc())
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, previous)
    if valid and outcome.state != "read":
        return Outcome("failed", f"an undamaged input was refused: {outcome.message}")
    if outcome.state == "refused" and not outcome.message.strip():
        return Outcome("failed", "refused without a message")
    return outcome


def _overdue(*_: object) -> None:
    raise Overdue(f"more than {LIMIT_S} s")


def main() -> int:
    """Fuzz, print failures and a summary; returns 1 where an input failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind (repeatable; default: all)")
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="inputs of all kinds together")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first input (default: 0)")
    arguments = parser.parse_args()
    kinds = arguments.kind or list(KINDS)
    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        for kind in kinds:
            start, states, seen = time.monotonic(), Counter[str](), Counter[str]()
            for own, outcome in cases(kind, arguments.seed, -(-arguments.count // len(kinds)), Path(scratch)):
                states[outcome.state] += 1
                if outcome.state != "failed":
                    continue
                failures += 1
                last = outcome.message.strip().splitlines()
                place = next((line.strip() for line in reversed(last) if "agebench/" in line), "")
                seen[f"{place} {last[-1][:100]}"] += 1
                if seen[f"{place} {last[-1][:100]}"] == 1 or arguments.count == 1:  # one of each
                    print(
                        f"--- {kind}: python {sys.argv[0]} --kind {kind} --count 1 --seed {own}\n{outcome.message[-3000:]}"
                    )
            print(
                f"{kind}: {dict(states)}, {len(seen)} different failures, {time.monotonic() - start:.0f} s", flush=True
            )
            for problem, times in seen.most_common():
                print(f"  {times} x {problem}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
