"""Simultaneous intervals of groups of few people."""

import numpy as np

from agebench.metrics.simultaneous import GroupReplicates, excess_intervals


def groups(people: tuple[int, ...], images: tuple[int, ...], seed: int) -> GroupReplicates:
    """MAEs of groups that are alike, with 200 resamples of their people."""
    rng = np.random.default_rng(seed)
    values, resampled = [], []
    for count, each in zip(people, images, strict=True):
        errors = np.abs(5 + rng.normal(0, 1.5, count)[:, None] + rng.normal(0, 1, (count, each))).mean(axis=1)
        values.append(errors.mean())
        resampled.append(rng.multinomial(count, np.full(count, 1 / count), size=200) @ errors / count)
    rows = np.multiply(people, images).astype(float)
    return GroupReplicates(np.array(values), np.array(resampled), rows, np.array(people))


def test_few_people_among_the_others_make_no_group_the_worst() -> None:
    """Of 400 samples, 92 % at least hold 0 for both groups, and 5 % at most show the large one to be worse."""
    held = shown = 0
    for repeat in range(400):
        (intervals,) = excess_intervals([groups((200, 2), (1, 20), repeat)])
        held += (intervals[1] <= 0).all() and (intervals[2] >= 0).all()
        shown += intervals[1, 0] > 0
    assert held >= 0.92 * 400
    assert shown <= 0.05 * 400


def test_beside_a_group_of_one_person_no_excess_has_an_interval() -> None:
    (intervals,) = excess_intervals([groups((50, 1), (1, 30), 0)])
    assert np.isfinite(intervals[0]).all()
    assert np.isnan(intervals[1:]).all()
