"""Write the web page of a model: of a finished run, an exported file, or the model that ships with agebench."""

import tempfile
from pathlib import Path
from typing import cast

from agebench.errors import UserError
from agebench.estimators.exported.adapter import card_info
from agebench.estimators.exported.base import ExportedFile
from agebench.estimators.exported.loading import open_exported
from agebench.estimators.exported.onnx_file import OnnxFile
from agebench.estimators.external.model_files import require_onnxruntime
from agebench.estimators.released import NAME, ReleasedModel, released_dir
from agebench.export.card import INTENDED_USE
from agebench.export.formats.onnx import require_onnx
from agebench.export.restore import convert_to_onnx
from agebench.export.web.page import interval_of, write_page
from agebench.export.web.schema import PageModel, PageSettings, PageTest
from agebench.metrics.schema import CalibratedInterval, TestResult
from agebench.registry.catalog import Catalog
from agebench.reports.formatting import format_ci
from agebench.runs.export import export_run, plan_exports
from agebench.runs.run_dir import RunDir


def export_web_page(
    model: str, catalog: Catalog, out: Path, *, trusted: bool = False, archive: Path | None = None
) -> PageSettings:
    """Write a static page on which the model estimates ages in the visitor's browser.

    Args:
        model: `agebench-base`, the folder of a finished run, or an exported .onnx or .ts file.
        catalog: the registered cards.
        out: the folder of the page.
        trusted: whether a .ts file may be opened, which can run code.
        archive: the archive of onnxruntime-web's npm package; None: npm fetches it.

    Returns:
        The content of the page's `model.json`.

    Raises:
        UserError: there is no such model, it cannot be run in a browser, or a package is missing.
        AgebenchError: the ONNX file's ages differ from the model's, or a file cannot be written.
    """
    require_onnx()
    require_onnxruntime("what --web writes")
    with tempfile.TemporaryDirectory(prefix="agebench-web-") as temporary:
        file = _open_onnx(model, catalog, Path(temporary), trusted)
        planes = file.card.input.planes
        if planes != 3:
            raise UserError(
                f"{model}: sees bodies, too ({planes} channels); the page finds faces only. `agebench demo` shows it"
            )
        interval = _with_titles(interval_of(file), catalog)
        return write_page(out, file, _describe(model, file), _tests(file, catalog, interval), interval, archive=archive)


def _open_onnx(model: str, catalog: Catalog, folder: Path, trusted: bool) -> OnnxFile:
    """Return the model as an ONNX file, which is written into `folder` unless it is one already."""
    path = Path(model).expanduser()
    if path.is_dir():
        export_run(RunDir(path), catalog, plan_exports(["onnx"], ["fp32"]), folder)
        return cast(OnnxFile, open_exported(folder / "model.onnx"))
    if model == NAME:
        path = ReleasedModel.read(released_dir()).path(released_dir())
    elif not path.exists():
        raise UserError(
            f"{model}: no such folder or file; give a run's folder, an exported .onnx or .ts file, or {NAME}"
        )
    source = open_exported(path, trusted=trusted or model == NAME)
    if isinstance(source, OnnxFile):
        return source
    if source.card.format != "torchscript":
        raise UserError(f"{model}: cannot be written as ONNX; give the run's folder, or an exported .onnx or .ts file")
    convert_to_onnx(source, folder / "model.onnx")
    return cast(OnnxFile, open_exported(folder / "model.onnx"))


def _describe(model: str, file: ExportedFile) -> PageModel:
    info = card_info(file.card)
    name, training_data, licence = info.name, info.training_data, info.licence
    if model == NAME:
        released = ReleasedModel.read(released_dir())
        name, training_data, licence = NAME, released.training_data, released.licence
    return PageModel(
        file="",
        sha256="",
        name=name,
        title=info.title or info.name,
        training_data=training_data,
        licence=licence,
        intended_use=file.card.intended_use or INTENDED_USE,
    )


def _tests(file: ExportedFile, catalog: Catalog, interval: CalibratedInterval | None) -> list[PageTest]:
    """Return the errors on each test set, and the interval's coverage there."""
    home = file.card.training.dataset
    coverage = {} if interval is None else interval.coverage
    rows = []
    for name, test in file.card.figures.tests.items():
        label = f"{name} (held-out part)" if name == home else name
        title = _title(name, catalog)
        share = coverage.get(label)
        rows.append(
            PageTest(
                name=f"{title} (held-out part)" if name == home else title,
                mae=_error(test),
                coverage="" if share is None else format_ci(share, digits=1, percent=True),
            )
        )
    return rows


def _error(test: TestResult) -> str:
    """Return the MAE, or the distance to the labeled range where labels are ranges of ages, as text."""
    distance = test.metric("range_mae")
    return format_ci(test.metric("mae")) if distance.value is None else f"{format_ci(distance)} to the labeled range"


def _with_titles(interval: CalibratedInterval | None, catalog: Catalog) -> CalibratedInterval | None:
    """Replace the name of the calibration set by its title."""
    if interval is None:
        return None
    name, separator, part = interval.calibrated_on.partition(" (")
    return interval.model_copy(update={"calibrated_on": _title(name, catalog) + separator + part})


def _title(name: str, catalog: Catalog) -> str:
    return catalog.datasets.get(name).title if name in catalog.datasets.names() else name
