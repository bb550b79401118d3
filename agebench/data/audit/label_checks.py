"""Label checks of an audit: contradictions between copies, implausible ages, contradictory subjects."""

from typing import Any

import numpy as np
import pandas as pd

from agebench.data.audit.report_model import name_pairs

# An age is implausible if it differs by more years than this from every other image of the subject, given more images
# than this.
AGE_GAP, MIN_PICTURES = 15.0, 3
# Years. Only a few dozen living people are older, so most such labels are errors.
MAX_PLAUSIBLE_AGE = 110.0
LABELS = ("age", "gender", "race", "subject")
# Subject column -> the problem if a subject has several values in it.
_SUBJECT_PROBLEMS = {"split": "is in several splits", "gender": "has two genders", "race": "has two races"}


def find_label_conflicts(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Find different labels within pairs of copies, the largest age differences first.

    Of images with the same pixels, each one that disagrees with any other is in at least one pair.

    Args:
        table: the images of all datasets, the audited one first, with `dataset`, `sample_id`, `pixels_digest` and labels.
        pairs: `first` and `second`, rows of `table`.

    Returns:
        The columns of `PAIR`, `label`, `value`, `other_value` and `difference` (years; NaN for other labels than age).
        Labels other than age are compared within one dataset only.
    """
    conflicts = []
    is_own = table["dataset"] == table["dataset"].iloc[0]
    all_pairs = pairs[["first", "second"]]
    for label in LABELS:
        if label not in table:
            continue
        comparable = table[label] if label == "age" else table[label].where(is_own)
        added = _pair_different(comparable, table["pixels_digest"])
        added = added[is_own.to_numpy()[added["first"]]]
        pairs = pd.concat([all_pairs, added]).drop_duplicates(ignore_index=True)
        names = name_pairs(table, pairs)
        values, other_values = (table[label].iloc[pairs[side]].reset_index(drop=True) for side in ("first", "second"))
        differs = values.notna() & other_values.notna() & (values.astype("str") != other_values.astype("str"))
        difference: pd.Series[float] | float = np.nan
        if label == "age":
            difference = (values - other_values).abs()
        else:
            differs &= names["dataset"] == names["other_dataset"]
        described = names.assign(
            label=label,
            value=values.astype("str"),
            other_value=other_values.astype("str"),
            difference=difference,
        )
        conflicts.append(described[differs])
    return pd.concat(conflicts, ignore_index=True).sort_values(
        "difference", ascending=False, kind="stable", ignore_index=True
    )


def _pair_different(values: "pd.Series[Any]", sets: "pd.Series[str]") -> pd.DataFrame:
    """Pair each row with the first one of its set that has another value: first, second.

    All pairs of a set would be too many: thousands of images may be one placeholder.
    """
    known = pd.DataFrame({"row": np.arange(len(values)), "set": sets.to_numpy(), "value": values.to_numpy()})
    known = known[values.notna().to_numpy()].astype({"value": "str"})
    first = known.groupby("set", sort=False)[["row", "value"]].transform("first")
    differs = known["value"] != first["value"]
    first_different = known[differs].drop_duplicates("set").set_index("set")["row"]
    partners = first["row"].where(differs, known["set"].map(first_different))
    is_paired = partners.notna()
    rows, partners = known["row"][is_paired], partners[is_paired].astype("int64")
    return pd.DataFrame({"first": np.minimum(rows, partners), "second": np.maximum(rows, partners)}).drop_duplicates()


def find_implausible_ages(table: pd.DataFrame) -> pd.DataFrame:
    """Find implausible ages.

    These are ages far from the subject's other ages, outside their own range, or hardly ever reached.

    Args:
        table: the samples of one dataset.

    Returns:
        sample_id, age (years), subject and reason of each implausible age.
    """
    rows: list[tuple[object, float, object, str]] = []
    known = table[table["subject"].notna()]
    known = known[known.groupby("subject", observed=True)["age"].transform("size") > MIN_PICTURES]
    for subject, images in known.groupby("subject", sort=True, observed=True):
        ages = images["age"].to_numpy()
        for i, age in enumerate(ages):
            others = np.delete(ages, i)
            spread = np.abs(others - np.median(others)).max()
            gap = np.abs(others - age).min()
            if gap > max(AGE_GAP, spread):  # further from every other image than those are from their median
                reason = f"{gap:g} years from the nearest of the subject's {len(others)} other images"
                rows.append((images["sample_id"].iloc[i], age, subject, reason))
    reported_ids = {row[0] for row in rows}
    missing = pd.Series(np.nan, index=table.index)
    bounds = (table.get(bound, missing) for bound in ("age_low", "age_high"))
    columns = (table["sample_id"], table["age"], table["subject"], *bounds)
    for sample_id, age, subject, low, high in zip(*columns, strict=True):
        if low > age or high < age:
            rows.append((sample_id, age, subject, f"outside its own range, {low:g} to {high:g}"))
        elif age >= MAX_PLAUSIBLE_AGE and sample_id not in reported_ids:
            rows.append((sample_id, age, subject, f"{MAX_PLAUSIBLE_AGE:g} years or more"))
    return pd.DataFrame(rows, columns=["sample_id", "age", "subject", "reason"])


def find_contradictory_subjects(table: pd.DataFrame) -> pd.DataFrame:
    """Find subjects in several splits, or with several genders or races.

    Args:
        table: the samples of one dataset.

    Returns:
        subject, problem and values (the different values, separated by commas).
    """
    rows: list[tuple[object, str, str]] = []
    known = table[table["subject"].notna()]
    for label, problem in _SUBJECT_PROBLEMS.items():
        if label in known:
            values = known.loc[known[label].notna(), ["subject", label]].drop_duplicates()
            contradictions = values[values["subject"].duplicated(keep=False)]
            rows += [
                (subject, problem, ", ".join(sorted(map(str, labels))))
                for subject, labels in contradictions.groupby("subject", sort=True, observed=True)[label]
            ]
    return pd.DataFrame(rows, columns=["subject", "problem", "values"])
