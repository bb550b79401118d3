"""Write the folder of a web page: static files, the model, the face detector and the runtime."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agebench._version import __version__
from agebench.data.faces.alignment import template_positions
from agebench.data.faces.detectors.five_points import NOSE_BASE_SHARE
from agebench.data.faces.detectors.yunet import MAX_OVERLAP, MIN_SCORE, SEARCHES, WEIGHTS
from agebench.data.readers.synth import SynthReader
from agebench.errors import AgebenchError, UserError
from agebench.estimators.exported.adapter import ExportedEstimator
from agebench.estimators.exported.onnx_file import OnnxFile
from agebench.export.formats.onnx import require_onnx
from agebench.export.web import runtime
from agebench.export.web.schema import (
    PageDetector,
    PageInput,
    PageModel,
    PageOutput,
    PageSearch,
    PageSettings,
    PageTest,
)
from agebench.metrics.guarantees import CalibrationError
from agebench.metrics.schema import CalibratedInterval
from agebench.utils.io import file_digest, read_limited, write_error, write_json

MODEL, DETECTOR, EXAMPLE, SETTINGS = "model.onnx", "face_detector.onnx", "example.png", "model.json"
RUNTIME = "runtime"
_MAX_SETTINGS_BYTES = 1_000_000
COVERAGE = 0.9  # of the interval
_ASSETS = Path(__file__).parent / "assets"
# Image of the dataset `synth` that is the example, and its side in pixels.
_EXAMPLE_INDEX, _EXAMPLE_SIDE = 4, 448


def write_page(
    folder: Path,
    model: OnnxFile,
    facts: PageModel,
    tests: Sequence[PageTest],
    interval: CalibratedInterval | None,
    *,
    archive: Path | None = None,
) -> PageSettings:
    """Write the page's folder; nothing is left of a page that was not written completely.

    Args:
        folder: the folder; it is created if it is missing, and files of an earlier page are replaced.
        model: the model.
        facts: description of the model; its file's name and digest are set here.
        tests: errors on the test sets.
        interval: the interval that the page shows; None: none.
        archive: the archive of onnxruntime-web's npm package; None: npm fetches it.

    Returns:
        The content of `model.json`.

    Raises:
        UserError: onnx is not installed, the runtime cannot be fetched, or the folder holds files and is no earlier page.
        AgebenchError: npm fails, or a file cannot be written.
    """
    require_onnx()
    folder = folder.absolute()
    _refuse_foreign(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            written = Path(temporary) / "page"
            settings = _write_files(written, model, facts, tests, interval, archive)
            _move(written, folder)
    except OSError as error:
        raise write_error(folder, error) from error
    return settings


def _write_files(
    folder: Path,
    model: OnnxFile,
    facts: PageModel,
    tests: Sequence[PageTest],
    interval: CalibratedInterval | None,
    archive: Path | None,
) -> PageSettings:
    """Write all files of the page into a new folder, and return the content of `model.json`."""
    runtime.write_runtime(folder / RUNTIME, archive)
    for source in _ASSETS.iterdir():
        shutil.copyfile(source, folder / source.name)
    shutil.copyfile(model.path, folder / MODEL)
    _write_detector(folder / DETECTOR)
    shutil.copyfile(WEIGHTS.parent / "LICENSE.yunet.txt", folder / "LICENSE.yunet.txt")
    (folder / EXAMPLE).write_bytes(example_image())
    spec = ExportedEstimator(model).input_spec
    settings = PageSettings(
        model=facts.model_copy(update={"file": MODEL, "sha256": file_digest(folder / MODEL)}),
        input=PageInput(
            size=spec.size,
            crop_scale=spec.crop_scale,
            offset=spec.offset,
            visible=spec.visible,
            template=template_positions(spec.crop_scale, spec.offset).tolist(),
        ),
        output=PageOutput(ages=model.card.output.ages, std=model.card.output.std),
        interval=interval,
        tests=list(tests),
        detector=PageDetector(
            file=DETECTOR,
            searches=[PageSearch(side=search.side, border=search.border) for search in SEARCHES],
            min_score=MIN_SCORE,
            max_overlap=MAX_OVERLAP,
            nose_base_share=NOSE_BASE_SHARE,
        ),
        example=EXAMPLE,
        download_bytes=sum(path.stat().st_size for path in _loaded_files(folder)),
        software=(
            f"Written by agebench {__version__}; runs on {runtime.PACKAGE} {runtime.VERSION} (MIT); face detector YuNet (MIT). "
            "The example is drawn and shows no person."
        ),
    )
    write_json(folder / SETTINGS, settings.model_dump(mode="json", by_alias=True))
    return settings


def interval_of(model: OnnxFile) -> CalibratedInterval | None:
    """Return the interval that the card inside a file states for `COVERAGE`, or None.

    Args:
        model: the file.

    Raises:
        UserError: the card contradicts itself.
    """
    try:
        return ExportedEstimator(model).interval(COVERAGE)
    except CalibrationError:
        return None


def example_image() -> bytes:
    """Render the example as PNG: a drawn face, framed as one cropped face."""
    reader = SynthReader(None, count=_EXAMPLE_INDEX + 1, size=_EXAMPLE_SIDE)
    return reader.image_bytes(f"synth-{_EXAMPLE_INDEX}.png")


def _refuse_foreign(folder: Path) -> None:
    """Raise a UserError if a folder holds files and is not that of an earlier page."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        PageSettings.model_validate_json(read_limited(folder / SETTINGS, _MAX_SETTINGS_BYTES))
    except (OSError, ValueError, AgebenchError):
        raise UserError(
            f"{folder}: holds other files, which a page could replace; give --web a new or an empty folder"
        ) from None


def _move(written: Path, folder: Path) -> None:
    """Move a page to its folder: at once if that is new, else file by file over those of the earlier page, `model.json` last.

    Links among the earlier files are replaced and not followed.
    """
    if not folder.exists():
        written.replace(folder)
        return
    files = [path for path in written.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == SETTINGS):
        target = folder / path.relative_to(written)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)


def _loaded_files(folder: Path) -> list[Path]:
    return [folder / MODEL, folder / DETECTOR, *(folder / RUNTIME / name for name in runtime.FILES)]


def _write_detector(path: Path) -> None:
    """Write the face detector with an input of any size; its own file fixes 640 x 640 pixels, which OpenCV overrides."""
    import onnx

    model = onnx.load(WEIGHTS)
    del model.graph.value_info[:]  # sizes of inner tensors
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "HW"[axis - 2]
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"{output.name}_cells"
    onnx.save(model, path)
