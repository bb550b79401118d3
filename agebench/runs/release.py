"""Turn a finished run into the model that ships with agebench."""

import shutil
import tempfile
from pathlib import Path

from agebench.errors import UserError
from agebench.estimators.released import MAX_BYTES, NAME, ReleasedModel
from agebench.metrics.schema import TestResult
from agebench.registry.catalog import Catalog
from agebench.reports.formatting import format_ci
from agebench.runs.export import export_run, load_finished_run, plan_exports
from agebench.runs.run_dir import RunDir
from agebench.utils.io import atomic_write, file_digest, write_error, write_json


def release_run(folder: RunDir, catalog: Catalog, out: Path) -> ReleasedModel:
    """Export a run's model in the highest precision that fits, and write it with its description.

    float32 is tried first, then float16, whose accuracy is checked on the run's test sets.

    Args:
        folder: the run's folder.
        catalog: the cards of the datasets.
        out: the folder of the released files; an earlier model there is replaced.

    Returns:
        The description.

    Raises:
        UserError: the run is not finished, or its model is larger than a package may carry.
        AgebenchError: the file's predictions differ from the model's, or it cannot be written.
    """
    config, _ = load_finished_run(folder)
    metrics, manifest = folder.metrics_file(), folder.manifest()
    with tempfile.TemporaryDirectory(prefix="agebench-release-") as temporary:
        path, precision = _smallest_loss(folder, catalog, Path(temporary))
        train_card = catalog.datasets.get(config.data.train)
        pretraining = (manifest.get("model") or {}).get("pretraining_data")
        data = f"{train_card.title} (backbone: face recognition on {pretraining})" if pretraining else train_card.title
        described = ReleasedModel(
            name=NAME,
            file=f"{NAME}.ts",
            size_bytes=path.stat().st_size,
            sha256=file_digest(path),
            title=config.model.title,
            training_data=data,
            licence=f"for research only, as its training data ({train_card.licence})",
            precision=precision,
            mae={name: _error(test) for name, test in metrics.tests.items()},
            config_sha256=str(manifest.get("config_sha256") or file_digest(folder.path / "config.toml")),
        )
        try:
            out.mkdir(parents=True, exist_ok=True)
            # The description last: without it there is no released model.
            (out / f"{NAME}.json").unlink(missing_ok=True)
            with atomic_write(out / described.file) as staged:
                shutil.copyfile(path, staged)
        except OSError as error:
            raise write_error(out, error) from error
    write_json(out / f"{NAME}.json", described.model_dump(mode="json"))
    return described


def _error(test: TestResult) -> str:
    """The MAE of a test set, or the mean distance to the range where labels are ranges of ages."""
    distance = test.metric("range_mae")
    if distance.value is None:
        return format_ci(test.metric("mae"))
    return f"{format_ci(distance)} (distance to the labeled range)"


def _smallest_loss(folder: RunDir, catalog: Catalog, out: Path) -> tuple[Path, str]:
    """Return the path of the export with the highest precision that is small enough, and the precision."""
    sizes, refused = [], []
    for precision in ("fp32", "fp16"):
        result = export_run(folder, catalog, plan_exports(["torchscript"], [precision]), out)
        refused += [entry.reason for entry in result.refused]
        for entry in result.files:
            if entry.bytes <= MAX_BYTES:
                return out / entry.file, precision
            sizes.append(f"{precision} {entry.bytes:,} bytes")
    reasons = "; ".join([*sizes, *refused])
    raise UserError(f"{folder.path}: the model is too large to ship ({reasons}; at most {MAX_BYTES:,} bytes)")
