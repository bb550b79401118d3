"""Estimates without labels, and back."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agebench.data.samples import Samples, validate_samples
from agebench.leaderboard.published_estimates import (
    FOLD,
    estimates_digest,
    join_labels,
    plugins_of,
    pseudonymize,
    read_estimates,
    write_estimates,
)
from agebench.registry.registry import Registry


@pytest.fixture
def samples() -> Samples:
    """Thirty images, ordered by age, as file names often order them."""
    names = [f"{age:03d}_photo" for age in range(30)]
    table = pd.DataFrame({"sample_id": names, "path": names, "age": range(30), "side": ["left", "right"] * 15})
    made = validate_samples(table, groups=["side"])
    return Samples(made.table.assign(bytes_digest=[f"{age:x}" * 8 for age in range(30)]), made.groups)


def predictions(samples: Samples) -> pd.DataFrame:
    guess = np.random.default_rng(0).normal(20, 5, len(samples)).astype(np.float32).astype(float)
    return samples.table[["sample_id", "age", "side"]].assign(age_pred=guess)


def test_what_was_stored_joins_to_what_was_there(samples: Samples, tmp_path: Path) -> None:
    made = predictions(samples)
    write_estimates(tmp_path / "x.parquet", pseudonymize(made.iloc[4:20], samples.table))
    stored = read_estimates(tmp_path / "x.parquet")
    assert list(stored.columns) == ["key", "age_pred"]
    assert stored["age_pred"].dtype == np.float32
    back = join_labels(stored, samples)
    assert back is not None
    pd.testing.assert_frame_equal(
        back[["sample_id", "age", "side", "age_pred"]],
        made.iloc[4:20][["sample_id", "age", "side", "age_pred"]].reset_index(drop=True),
    )


def test_folds_that_share_images_keep_their_order(samples: Samples, tmp_path: Path) -> None:
    made = predictions(samples)
    folds = pd.concat(
        [made.iloc[10:].assign(**{FOLD: "b"}), made.iloc[:15].assign(**{FOLD: "a"}, age_pred=1.5)], ignore_index=True
    )
    write_estimates(tmp_path / "x.parquet", pseudonymize(folds, samples.table))
    stored = read_estimates(tmp_path / "x.parquet")
    assert estimates_digest(stored) == estimates_digest(pseudonymize(folds, samples.table))
    back = join_labels(stored, samples)
    assert back is not None
    for column in ("sample_id", "age", "age_pred", FOLD):
        assert back[column].tolist() == folds[column].tolist()


def test_who_has_not_the_image_has_not_the_key(samples: Samples) -> None:
    stored = pseudonymize(predictions(samples), samples.table)
    other = Samples(samples.table.assign(bytes_digest="0"), samples.groups)
    assert join_labels(stored, other) is None
    order = stored.merge(pseudonymize(samples.table.assign(age_pred=samples.table["age"]), samples.table), on="key")[
        "age_pred_y"
    ]
    assert abs(np.corrcoef(np.arange(30), order)[0, 1]) < 0.5  # rows are not in the order of age


def test_a_plugins_origin_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from agebench.leaderboard import published_estimates

    own: Registry[object] = Registry("head")
    own.register("coral", "agebench.models.heads.ordinal:CORALHead")
    own.register("theirs", object(), origin="entry point theirs:Head of numpy")
    monkeypatch.setattr(published_estimates, "heads", own)
    assert plugins_of("coral", {"synth": {"reader": "synth"}}) == {}
    assert plugins_of("theirs", {}) == {"head theirs": f"entry point theirs:Head of numpy {np.__version__}"}
    assert plugins_of(None, {}) == {}
