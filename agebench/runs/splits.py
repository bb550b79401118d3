"""Which image does what in one run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agebench.config.cards.protocol import Protocol
from agebench.config.run import DataConfig
from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.data.splits.protocols import Folds, make_folds
from agebench.data.splits.splits import SPLIT_SCHEME, drop_overlapping
from agebench.errors import UserError


@dataclass(frozen=True)
class RunSplits:
    """The samples of one run, or of one fold of it.

    Attributes:
        home: the training set's name.
        train, val: parts of the training set.
        tests: test set's name -> samples; the training set's own name stands for its held-out part.
        duplicates: exact copies within the training set; they stay on one side of its split.
        straddling: images of an official split left out because their double stands in a later part.
        overlap: test set's name -> images dropped from it because they also stand in train or val.
    """

    train_dataset: str
    train: Samples
    val: Samples
    tests: dict[str, Samples]
    duplicates: int
    straddling: int
    overlap: dict[str, int]

    def parts(self) -> dict[str, tuple[str, Samples]]:
        """File name -> (dataset, samples), for everything that is kept of a run's samples."""
        return {
            f"{self.train_dataset}-train": (self.train_dataset, self.train),
            f"{self.train_dataset}-val": (self.train_dataset, self.val),
            **{f"{name}-test": (name, test) for name, test in self.tests.items()},
        }


@dataclass(frozen=True)
class FoldSplits:
    """The division of each fold of a run; mostly there is one.

    Attributes:
        home: the training set's name.
        folds: how the training set is divided.
        tests: the test sets in their order; the training set's own name stands for its held-out part.
        others: test set -> samples of every other one, less what trains or validates in any fold: all folds are asked
            about the same images.
        overlap: test set -> images dropped from it for that.
    """

    train_dataset: str
    folds: Folds
    tests: tuple[str, ...]
    external_tests: dict[str, Samples]
    overlap: dict[str, int]

    def __len__(self) -> int:
        return len(self.folds)

    def __iter__(self) -> Iterator[RunSplits]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> RunSplits:
        """The division of one fold."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        own = self.folds.split(number)
        return RunSplits(
            train_dataset=self.train_dataset,
            train=own.train,
            val=own.val,
            tests={name: own.test if name == self.train_dataset else self.external_tests[name] for name in self.tests},
            duplicates=own.duplicates,
            straddling=own.straddling,
            overlap=self.overlap,
        )

    def drop_rejected(self, faces: dict[str, FaceCache]) -> "FoldSplits":
        """Less the samples in which no face could be prepared, which go to quarantine.

        Raises:
            UserError: nothing is left of a part.
        """
        kept = replace(
            self,
            folds=self.folds.keep(faces[self.train_dataset].drop_rejected(self.folds.samples)),
            external_tests={name: faces[name].drop_rejected(samples) for name, samples in self.external_tests.items()},
        )
        for division in kept:
            for part, (name, samples) in division.parts().items():
                if not len(samples):
                    raise UserError(
                        f"{part}: no face could be prepared in any of its images; does `faces` on the card of '{name}' fit?"
                    )
        return kept

    def labelled(self) -> Samples:
        """Whose labels say the classes of targets beside age: the training part, or, so that folds agree, the whole set."""
        return self[0].train if len(self) == 1 else self.folds.samples

    def quarantined(self) -> dict[str, Samples]:
        """Dataset -> the samples whose quarantine holds what was left out after the audit."""
        return {self.train_dataset: self.folds.samples, **self.external_tests}

    def protocol(self) -> dict[str, Any]:
        """Describe the division for metrics.json and the manifest: protocol, folds, leaks, version of the random draw."""
        return {
            "name": self.folds.protocol,
            "folds": len(self),
            "leaks": self.folds.count_leaks(),
            "split_scheme": self.split_scheme,
        }

    @property
    def split_scheme(self) -> int | None:
        """The version of the algorithm that drew a part of the training set; None where nothing was drawn."""
        return SPLIT_SCHEME if self.folds.drawn else None


def task_classes(home: str, training: Samples, name: str) -> tuple[str, ...]:
    """The classes of the label column `name` in the training set, sorted.

    Raises:
        UserError: no such column, no labels in it, or labels that are all alike.
    """
    table = training.table
    labelled = [column for column in dict.fromkeys(["gender", "race", *training.groups]) if table[column].nunique() > 1]
    if name not in labelled:
        known = [] if name not in table else list(table[name].dropna().unique())
        lack = f"all its labels are '{known[0]}'" if known else "has no labels of it"
        there = f"it can learn: {', '.join(labelled)}" if labelled else "it has none that could be learned beside age"
        raise UserError(f"--task {name}: the training set '{home}' {lack}; {there}. Leave it out with --task {name}=0.")
    return tuple(sorted(map(str, table[name].dropna().unique())))


def make_run_splits(
    data: DataConfig,
    samples: dict[str, Samples],
    *,
    seed: int,
    protocol: Protocol | None = None,
    root: Path | None = None,
) -> FoldSplits:
    """Divide the training set; test on its held-out part, and on all of every other set less what training saw.

    Args:
        data: the run's.
        samples: dataset's name -> audited samples.
        seed: of every draw.
        protocol: how the training set is divided; None: the default protocol.
        root: the training set's folder, for a protocol's list files.

    Raises:
        UserError: too few samples, a protocol that does not fit, or a test set that stands in the training set altogether.
    """
    home = data.train
    folds = make_folds(
        protocol, samples[home], test=data.test_share, val=data.val_share, seed=seed, source=home, root=root
    )
    seen = folds.train_val_samples()
    others, overlap = {}, {home: 0}
    for name in data.test:
        if name != home:
            others[name], overlap[name] = drop_overlapping(samples[name], [seen])
            if not len(others[name]):
                raise UserError(
                    f"{name}: every one of its images also stands in {home}'s training part: nothing to test on"
                )
    return FoldSplits(home, folds, data.test, others, {name: overlap[name] for name in data.test})
