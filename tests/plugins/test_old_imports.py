"""Imports that version 0.1 told plugin authors to write work, with a DeprecationWarning."""

import subprocess
import sys
from pathlib import Path

import pytest

from agebench import _deprecated

# The imports of version 0.1's example plugin and of its templates.
pytestmark = pytest.mark.slow
OLD_IMPORTS = [
    "from agebench.registry.cards import DatasetCard, read_table, validated",
    "from agebench.registry.external import ExternalCard",
    "from agebench.data.readers.common import finish, list_images, translate",
    "from agebench.data.samples import Samples, make_samples, quarantine",
    "from agebench.data.detectors import Detector, Face",
    "from agebench.testing import check_dataset, check_detector, check_head, check_model",
    "from agebench.testing.head import check_head",
    "from agebench.data.readers.csv import CSVReader",
    "from agebench.errors import ImageRefused, DatasetMissing",
    "from agebench.models.heads.scaled import ScaledHead",
    "from agebench.evaluation.evaluate import evaluate",
    "from agebench.evaluation.predictions import check_predictions",
    "from agebench.evaluation import evaluate, predictions",
    "import agebench.evaluation.predictions as p; p.check_predictions",
    "import agebench.engine.train; agebench.engine.train.Trainer",
    "from agebench.deploy.predictor import load, Predictor",
]


def _python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True)


def test_old_imports_work_and_warn() -> None:
    statements = "\n".join(
        f"with warnings.catch_warnings(record=True) as caught:\n"
        f"    warnings.simplefilter('always')\n"
        f"    {line}\n"
        f"assert [w for w in caught if w.category is DeprecationWarning and 'agebench.' in str(w.message)], {line!r}\n"
        f"for name in [name for name in sys.modules if name.startswith('agebench.') and _deprecated._new_module(name)]:\n"
        f"    del sys.modules[name]"
        for line in OLD_IMPORTS
    )
    done = _python(f"import sys, warnings\nfrom agebench import _deprecated\n{statements}")
    assert done.returncode == 0, done.stderr


def test_old_name_is_the_new_object() -> None:
    from agebench.config.cards.dataset import DatasetCard
    from agebench.config.toml_io import validate_model

    cards = pytest.importorskip("agebench.registry.cards")
    assert cards.DatasetCard is DatasetCard
    assert cards.validated is validate_model


def test_every_target_exists() -> None:
    for module, names in _deprecated.NAMES.items():
        replacement = _deprecated._new_module(module) or module
        for name in names:
            assert _deprecated._lookup(_deprecated._new_name(module, name, replacement)) is not None
    for replacement in _deprecated.MODULES.values():
        assert __import__(replacement)


@pytest.mark.parametrize("line", ["import agebench.engine.nothing", "from agebench.data.samples import nothing"])
def test_unknown_old_names_fail_as_usual(line: str) -> None:
    with pytest.raises(ImportError, match="nothing"):
        exec(line)


def test_new_imports_do_not_warn() -> None:
    code = "import agebench.data.samples, agebench.errors\nfrom agebench.plugins.testing import check_head"
    assert _python(code, "-W", "error::DeprecationWarning:agebench").returncode == 0


def test_old_overrides_of_renamed_methods_are_called() -> None:
    @_deprecated.renamed_methods(stamp="version_token")
    class Base:
        def version_token(self) -> str:
            return "new"

    with pytest.warns(DeprecationWarning, match="stamp is deprecated"):

        class Old(Base):
            def stamp(self) -> str:
                return "old"

    assert Old().version_token() == "old"
    with pytest.warns(DeprecationWarning, match="use version_token"):
        assert Base().stamp() == "new"  # type: ignore[attr-defined]


def test_no_source_uses_an_old_path() -> None:
    import agebench

    for path in Path(agebench.__file__).parent.rglob("*.py"):
        if path.name != "_deprecated.py":
            text = path.read_text(encoding="utf-8")
            used = [old for old in _deprecated.MODULES if f"from {old} import" in text or f"import {old}\n" in text]
            assert not used, f"{path}: {used}"
