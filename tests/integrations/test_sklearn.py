"""Scorers of scikit-learn agree with `ab.score`, and errors are negative."""

import pickle

import numpy as np
import pytest

import agebench as ab
from agebench.errors import UserError

pytest.importorskip("sklearn")
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from agebench.integrations.sklearn import age_scorer

RNG = np.random.default_rng(5)
AGES = RNG.uniform(8, 60, 200)
FEATURES = (AGES + RNG.normal(0, 6, 200))[:, None]
MODEL = Ridge().fit(FEATURES, AGES)


def test_age_scorer_agrees_with_score() -> None:
    estimates = MODEL.predict(FEATURES)
    report = ab.score(AGES, estimates, legal_ages=[18], challenge_ages=[25], resamples=0)
    expected = {
        "mae": -report.overall["mae"].value,
        "bias": -abs(report.overall["bias"].value),
        "cs5": report.overall["cs5"].value,
        "fpr(18@25)": -report.gates.loc[(18, 25.0), "fpr"],
        "fnr(18@25)": -report.gates.loc[(18, 25.0), "fnr"],
    }
    assert {figure: age_scorer(figure)(MODEL, FEATURES, AGES) for figure in expected} == pytest.approx(expected)


def test_age_scorer_selects_in_a_grid_search() -> None:
    search = GridSearchCV(Ridge(), {"alpha": [1e-3, 1e7]}, scoring=age_scorer("mae"), cv=2)
    assert search.fit(FEATURES, AGES).best_params_ == {"alpha": 1e-3}


def test_fitted_grid_search_can_be_pickled() -> None:
    search = GridSearchCV(Ridge(), {"alpha": [1e-3]}, scoring=age_scorer("fpr(18@25)"), cv=2).fit(FEATURES, AGES)
    assert pickle.loads(pickle.dumps(search)).score(FEATURES, AGES) == search.score(FEATURES, AGES)


@pytest.mark.parametrize("figure", ["nothing", "mae(gender=f)", "gap(gender)", "coverage", "fpr(18)"])
def test_age_scorer_names_the_figures_that_it_takes(figure: str) -> None:
    with pytest.raises(UserError, match=r"such as mae, bias, cs5 or fpr\(18@25\)"):
        age_scorer(figure)
