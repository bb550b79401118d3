"""The layout of NIST's evaluation of age estimation, FATE AEV, as a preset.

After Hanaoka et al. 2024, NIST IR 8525. It balances what a test set does not: MAE is the unweighted mean over cells of sex
and age. Its tasks beside estimation: Challenge-25 (over 18?), and whether a person is between 13 and 16.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from agebench.errors import UserError
from agebench.evaluation import metrics
from agebench.evaluation.analytic import Spread, cell_mean_spread, log_replicates, with_rows
from agebench.evaluation.gates import age_gates
from agebench.evaluation.groups import Grouping, grouping, groupings, single_years
from agebench.evaluation.intervals import Kind, exact_at_edges, figures
from agebench.evaluation.metric_specs import FigureKey
from agebench.evaluation.predictions import canonical
from agebench.evaluation.rates import clusters_of, people, rate
from agebench.evaluation.resampling import Floats, Ints, Replicates, Resampler

ACCURACIES = tuple(range(1, 11))
CHALLENGE = 25
RANGE = (13, 16)


def nist(
    table: pd.DataFrame,
    *,
    origin: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    interval: Kind = "bca",
) -> dict[str, Any]:
    """Figures in the layout of FATE AEV.

    Args:
        table: predictions, see `check_predictions`, with a column gender.
        origin: the column of region or race; default: region or race, where there is one.
        resamples: bootstrap samples.
        seed: of them.
        interval: `bca` or `percentile`.

    Returns:
        mae (unweighted mean over sex x age cells, with the number of `cells`), by_sex and by_origin (the same within: mean
        over ages), accuracy (Acc(x): the share within x years), challenge_25 (as an age gate of 18), age_range_13_16 (tpr:
        of the 13- to 16-year-olds the share estimated to be so, fpr: of the others).

    Raises:
        UserError: no column gender, or no such origin.
    """
    if "gender" not in table or table["gender"].isna().all():
        raise UserError("the NIST layout needs the column gender (name yours with --col gender=COLUMN)")
    origin = origin or next((name for name in ("region", "race") if name in table), None)
    table = canonical(table)
    sexes = grouping(table, "gender")
    origins = groupings(table, [origin]) if origin else []
    shown = [sexes, *origins]
    years = single_years(table["age"].to_numpy(float))
    span = int(years.max()) + 1
    features = metrics.make_features(table)
    codes = [np.zeros(len(table), dtype=np.int64)]
    codes += [np.where(one.codes >= 0, one.codes * span + years, -1) for one in shown]
    clusters = clusters_of(table)

    def statistic(sums: Sequence[Floats]) -> Floats:
        total, *cells = sums
        parts = [metrics.plain(features, total, [f"cs{x}" for x in ACCURACIES])[0]]
        parts.append(metrics.mean_over_sets(features, cells[0])[None])
        for one, of in zip(shown, cells, strict=True):
            parts += [
                metrics.mean_over_sets(features, of[place * span : (place + 1) * span])[None]
                for place in range(len(one.names))
            ]
        return np.concatenate(parts)

    keys: list[FigureKey] = [(f"cs{x}",) for x in ACCURACIES]
    keys += [("mae",), *((one.name, name, "mae") for one in shown for name in one.names)]
    found = Resampler(features.values, codes, clusters).replicates(statistic, resamples=resamples, seed=seed)
    every = figures(keys, _with_cell_means(found, features.column("abs"), codes, shown, clusters, span), interval)
    every |= {(f"cs{x}",): exact_at_edges(every[f"cs{x}",], found.clusters) for x in ACCURACIES}
    return {
        "mae": every["mae",] | {"cells": len(np.unique(codes[1][codes[1] >= 0]))},
        "by_sex": _named(sexes, every),
        "by_origin": {"column": origin, "groups": _named(origins[0], every)} if origins else None,
        "accuracy": {str(x): every[f"cs{x}",] for x in ACCURACIES},
        "challenge_25": _challenge(table, [one.name for one in shown]),
        "age_range_13_16": _age_range(table),
    }


def _with_cell_means(
    found: Replicates, errors: Floats, codes: Sequence[Ints], shown: Sequence[Grouping], clusters: Ints, span: int
) -> Replicates:
    """Give the means over cells, which follow the accuracies, replicates of their spread."""
    if not found.resampled.shape[1]:
        return found
    # Ages of one group are neighbors, those of two groups are not.
    cells = [np.where(code >= 0, code // span * 10_000 + code % span, -1) for code in codes[1:]]
    spreads = [cell_mean_spread(errors, cells[0], clusters)]
    for one, of in zip(shown, cells, strict=True):
        spreads += [
            cell_mean_spread(errors, np.where(one.codes == place, of, -1), clusters) for place in range(len(one.names))
        ]
    rows = np.arange(len(ACCURACIES), len(found.value))
    spread = Spread(np.concatenate([of.errors for of in spreads]), np.concatenate([of.freedom for of in spreads]))
    return with_rows(found, rows, log_replicates(found.value[rows], found.resampled[rows], spread))


def _named(one: Grouping, every: Mapping[FigureKey, Any]) -> dict[str, Any]:
    return {
        name: {"n": int(n), "mae": every[one.name, name, "mae"]} for name, n in zip(one.names, one.counts, strict=True)
    }


def _challenge(table: pd.DataFrame, groups: Sequence[str]) -> dict[str, Any] | None:
    gates = age_gates(table, legal_ages=(18,), challenges=(CHALLENGE,), groups=groups)
    return gates.get("18")


def _age_range(table: pd.DataFrame) -> dict[str, Any]:
    """Estimates count as within 13-16 from 13 up to, not including, 17: a person is 16 until the next birthday."""
    age, predicted = table["age"].to_numpy(float), table["age_pred"].to_numpy(float)
    low, high = RANGE
    inside, said = (age >= low) & (age < high + 1), (predicted >= low) & (predicted < high + 1)
    clusters = people(table)
    return {
        "n_inside": int(inside.sum()),
        "n_outside": int((~inside).sum()),
        "tpr": rate(said, inside, clusters),
        "fpr": rate(said, ~inside, clusters),
    }
