"""Work on tables of estimates: bootstrap, scoring, conformal intervals and calibration."""

from typing import Any

import numpy as np
import pandas as pd

from comparison.timing import Done, Peer, Work

LEVEL = 0.9
FAIRLEARN = {"fairlearn": "fairlearn.metrics"}


def predictions(rows: int, groups: int = 12, seed: int = 0) -> pd.DataFrame:
    """Return made-up labels and predictions whose errors grow with age."""
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 100, rows).astype(float)
    std = 2 + age / 20
    return pd.DataFrame(
        {
            "sample_id": np.arange(rows).astype(str),
            "age": age,
            "age_pred": age + rng.normal(0, std),
            "age_std": std,
            "group": rng.integers(0, groups, rows).astype(str),
        }
    )


def bootstrap(quick: bool) -> Work:
    """MAE overall and by 12 groups with 95 % intervals."""
    from agebench.metrics.bootstrap import ClusterBootstrap

    rows, resamples = (2_000, 200) if quick else (20_000, 1000)
    table = predictions(rows)
    age, predicted = table["age"].to_numpy(), table["age_pred"].to_numpy()
    codes = table["group"].astype(int).to_numpy()
    subsets = [np.arange(rows), *(np.flatnonzero(codes == group) for group in range(12))]

    def done(made: int) -> Done:
        return Done(made / resamples, f"{made:,} of {resamples:,} resamples measured" if made < resamples else "")

    def own() -> Done:
        features = np.column_stack([np.ones(rows), np.abs(predicted - age)])
        groupings = [np.zeros(rows, dtype=np.int64), codes]
        found = ClusterBootstrap(features, groupings, np.arange(rows)).replicates(
            lambda sums: np.concatenate([of[:, 1] / of[:, 0] for of in sums]), resamples=resamples, seed=0
        )
        np.quantile(found.resampled, [0.025, 0.975], axis=1)
        return Done()

    def fairlearn() -> Done:
        from fairlearn.metrics import MetricFrame
        from sklearn.metrics import mean_absolute_error

        MetricFrame(
            metrics=mean_absolute_error,
            y_true=age,
            y_pred=predicted,
            sensitive_features=codes,
            n_boot=9,
            ci_quantiles=[0.025, 0.975],
            random_state=0,
        )
        return done(10)  # nine resamples, and the data themselves

    def scipy_bootstrap() -> Done:
        from scipy.stats import bootstrap

        for subset in subsets:
            errors = np.abs(predicted - age)[subset]
            bootstrap((errors,), np.mean, n_resamples=200, batch=20, method="percentile", rng=0)
        return done(200)

    def confidence_interval() -> Done:
        from confidenceinterval.bootstrap import bootstrap_ci
        from sklearn.metrics import mean_absolute_error

        for subset in subsets:
            bootstrap_ci(
                age[subset], predicted[subset], mean_absolute_error, n_resamples=20, method="bootstrap_percentile"
            )
        return done(20)

    def torchmetrics() -> Done:
        import torch
        from torchmetrics import MeanAbsoluteError
        from torchmetrics.wrappers import BootStrapper

        for subset in subsets:
            metric = BootStrapper(MeanAbsoluteError(), num_bootstraps=20, sampling_strategy="multinomial")
            metric.update(torch.from_numpy(predicted[subset]), torch.from_numpy(age[subset]))
            metric.compute()
        return done(20)

    peers = (
        Peer("agebench", own),
        Peer("fairlearn MetricFrame", fairlearn, FAIRLEARN),
        Peer("scipy.stats.bootstrap", scipy_bootstrap, {"scipy": "scipy.stats"}),
        Peer("confidenceinterval", confidence_interval, {"confidenceinterval": "confidenceinterval.bootstrap"}),
        Peer("torchmetrics BootStrapper", torchmetrics, {"torchmetrics": "torchmetrics"}),
    )
    title = f"bootstrap of MAE, {rows:,} rows, overall and 12 groups, B = {resamples:,}"
    return Work(title, peers, "where a peer makes a share of the resamples, its time is that of all, in proportion.")


def score(quick: bool) -> Work:
    """Everything that `evaluate` computes, against MAE alone."""
    from agebench.metrics.evaluate import evaluate

    rows, resamples = (2_000, 200) if quick else (20_000, 1000)
    table = predictions(rows).drop(columns="age_std")

    def own() -> Done:
        evaluate(table, groups=["group"], resamples=resamples)
        return Done()

    peers = (Peer("agebench", own), *bootstrap(quick).peers[1:3])
    note = "agebench computes every metric, gap and test of `agebench score`; the peers compute the MAE alone."
    return Work(f"all of `score`, {rows:,} rows, 12 groups, B = {resamples:,}", peers, note)


def conformal(quick: bool) -> Work:
    """Split-conformal intervals and their coverage on a test set."""
    from agebench.metrics.uncertainty import conformal

    rows = 2_000 if quick else 20_000
    calibration, test = (predictions(rows, seed=seed).drop(columns="age_std") for seed in (1, 2))
    ages = [table["age"].to_numpy() for table in (calibration, test)]
    estimates = [table["age_pred"].to_numpy() for table in (calibration, test)]
    repeats = 1 if quick else 100  # the processor's clock counts hundredths

    def own() -> Done:
        for _ in range(repeats):
            conformal(calibration, test, levels=(LEVEL,))
        return Done(repeats)

    def mapie() -> Done:
        from mapie.regression import SplitConformalRegressor
        from sklearn.dummy import DummyRegressor

        class Identity(DummyRegressor):  # type: ignore[misc]
            """A fitted model whose prediction is its only feature."""

            def predict(self, features: Any) -> Any:
                """Return the feature."""
                return np.asarray(features)[:, 0]

        model = Identity().fit(estimates[0][:, None], ages[0])
        for _ in range(repeats):
            regressor = SplitConformalRegressor(model, confidence_level=LEVEL, prefit=True)
            regressor.conformalize(estimates[0][:, None], ages[0])
            _, intervals = regressor.predict_interval(estimates[1][:, None])
            coverage(intervals[:, :, 0])
        return Done(repeats)

    def crepes() -> Done:
        from crepes import ConformalRegressor

        for _ in range(repeats):
            regressor = ConformalRegressor().fit(ages[0] - estimates[0])
            coverage(np.asarray(regressor.predict_int(estimates[1], confidence=LEVEL)))
        return Done(repeats)

    def coverage(intervals: np.ndarray) -> float:
        return float(np.mean((intervals[:, 0] <= ages[1]) & (ages[1] <= intervals[:, 1])))

    peers = (
        Peer("agebench", own),
        Peer("MAPIE", mapie, {"mapie": "mapie.regression"}),
        Peer("crepes", crepes, {"crepes": "crepes"}),
    )
    note = "agebench adds the interval of the coverage, and weighs people where subjects are known."
    return Work(f"conformal intervals, {rows:,} + {rows:,} rows", peers, note)


def calibration(quick: bool) -> Work:
    """Coverage and likelihood of predicted normal distributions."""
    from agebench.metrics.uncertainty import score_gaussian

    rows = 2_000 if quick else 20_000
    table = predictions(rows)
    age, mean, std = (table[name].to_numpy() for name in ("age", "age_pred", "age_std"))
    levels = [round(0.05 * step, 2) for step in range(1, 20)]
    repeats = 1 if quick else 50

    def own() -> Done:
        for _ in range(repeats):
            scores = score_gaussian(age, mean, std)
            scores.nll.mean()
            for level in levels:
                scores.covered(level).mean()
        return Done(repeats)

    def netcal() -> Done:
        from netcal.metrics.regression import NLL, PICP

        for _ in range(repeats):
            NLL().measure((mean, std), age, reduction="mean")
            PICP(bins=1).measure((mean, std), age, q=levels, kind="meanstd")
        return Done(repeats)

    peers = (
        Peer("agebench", own),
        Peer("netcal NLL and PICP", netcal, {"netcal": "netcal.metrics.regression"}),
    )
    return Work(f"likelihood and coverage at 19 levels, {rows:,} rows", peers)
