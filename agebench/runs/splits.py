"""The train, validation and test samples of one run and of its folds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from agebench.config.cards.protocol import Protocol
from agebench.config.run import DataConfig
from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.data.splits.folds import Folds
from agebench.data.splits.protocols import make_folds
from agebench.data.splits.splits import drop_overlapping, split_scheme
from agebench.errors import UserError


@dataclass(frozen=True)
class RunSplits:
    """The samples of one run, or of one fold of it.

    Attributes:
        train_dataset: the training set's name.
        train, val: splits of the training set.
        tests: test set -> samples; the training set's own name is its held-out split.
        duplicates: exact copies within the training set, all of which are in one split.
        n_cross_split_removed: images of an official split that were removed because a copy is in a later split.
        overlap: test set -> images removed from it because they, or their people, are also in train or val.
    """

    train_dataset: str
    train: Samples
    val: Samples
    tests: dict[str, Samples]
    duplicates: int
    n_cross_split_removed: int
    overlap: dict[str, int]

    def parts(self) -> dict[str, tuple[str, Samples]]:
        """Return file name -> (dataset, samples) of every split."""
        return {
            f"{self.train_dataset}-train": (self.train_dataset, self.train),
            f"{self.train_dataset}-val": (self.train_dataset, self.val),
            **{f"{name}-test": (name, test) for name, test in self.tests.items()},
        }


@dataclass(frozen=True)
class FoldSplits:
    """The splits of each fold of a run; most runs have one fold.

    Attributes:
        train_dataset: the training set's name.
        folds: the split of the training set in each fold.
        tests: the test sets in order; the training set's own name is its held-out split.
        external_tests: other test set -> its samples without those that any fold trains or validates on, so that all
            folds are tested on the same images.
        overlap: test set -> images removed from it for that reason.
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
        """Return the samples of one fold."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        own = self.folds.split(number)
        return RunSplits(
            train_dataset=self.train_dataset,
            train=own.train,
            val=own.val,
            tests={name: own.test if name == self.train_dataset else self.external_tests[name] for name in self.tests},
            duplicates=own.n_duplicates,
            n_cross_split_removed=own.n_cross_split_removed,
            overlap=self.overlap,
        )

    def drop_rejected(self, faces: dict[str, FaceCache]) -> "FoldSplits":
        """Return the splits without samples in which no face could be prepared; these are rejected.

        Args:
            faces: dataset -> prepared faces.

        Raises:
            UserError: a split is empty.
        """
        remaining = replace(
            self,
            folds=self.folds.keep(faces[self.train_dataset].drop_rejected(self.folds.samples)),
            external_tests={name: faces[name].drop_rejected(samples) for name, samples in self.external_tests.items()},
        )
        for split in remaining:
            for part, (name, samples) in split.parts().items():
                if not len(samples):
                    raise UserError(
                        f"{part}: no face could be prepared in any of its images; does `faces` on the card of '{name}' fit?"
                    )
        return remaining

    def labelled(self) -> Samples:
        """Return the samples whose labels are the classes of auxiliary targets: train, or with folds the whole dataset."""
        return self[0].train if len(self) == 1 else self.folds.samples

    def rejected(self) -> dict[str, Samples]:
        """Return dataset -> the samples with the rejections that followed the audit."""
        return {self.train_dataset: self.folds.samples, **self.external_tests}

    def protocol(self) -> dict[str, object]:
        """Return protocol, number of folds, leaks and split scheme, for metrics.json and the manifest."""
        return {
            "name": self.folds.protocol,
            "folds": len(self),
            "leaks": self.folds.count_leaks(),
            "split_scheme": self.split_scheme,
        }

    @property
    def split_scheme(self) -> int | None:
        """The version of the random split algorithm; None where no split is random."""
        return split_scheme(self.folds.samples.table) if self.folds.is_random else None


def task_classes(home: str, training: Samples, name: str) -> tuple[str, ...]:
    """Return the sorted classes of an auxiliary target.

    Args:
        home: the training set's name.
        training: the samples whose labels count.
        name: the label column.

    Raises:
        UserError: the column does not exist, has no labels, or has a single class.
    """
    table = training.table
    labelled = [column for column in dict.fromkeys(["gender", "race", *training.groups]) if table[column].nunique() > 1]
    if name not in labelled:
        values = [] if name not in table else list(table[name].dropna().unique())
        problem = f"all its labels are '{values[0]}'" if values else "has no labels of it"
        hint = f"it can learn: {', '.join(labelled)}" if labelled else "it has none that could be learned beside age"
        raise UserError(
            f"--task {name}: the training set '{home}' {problem}; {hint}. Leave it out with --task {name}=0."
        )
    return tuple(sorted(map(str, table[name].dropna().unique())))


def make_run_splits(
    data: DataConfig,
    samples: dict[str, Samples],
    *,
    seed: int,
    protocol: Protocol | None = None,
    root: Path | None = None,
    same_people: frozenset[str] = frozenset(),
) -> FoldSplits:
    """Split the training set, and remove its training images from the other test sets.

    Args:
        data: the run's settings of datasets and splits.
        samples: dataset -> audited samples.
        seed: seed of the random splits.
        protocol: how the training set is split; None: the default protocol.
        root: the training set's folder, for a protocol's list files.
        same_people: the test sets whose `subject` means the training set's people; they lose all images of trained people.

    Raises:
        UserError: there are too few samples, the protocol does not fit, or a test set is contained in the training split.
    """
    home = data.train
    folds = make_folds(
        protocol, samples[home], test=data.test_share, val=data.val_share, seed=seed, source=home, root=root
    )
    train_val = folds.train_val_samples()
    external_tests, overlap = {}, {home: 0}
    for name in data.test:
        if name != home:
            external_tests[name], overlap[name] = drop_overlapping(
                samples[name], [train_val], same_people=name in same_people
            )
            if not len(external_tests[name]):
                people = ", or of people in it" if name in same_people else ""
                raise UserError(
                    f"{name}: all of its images are also in {home}'s training split{people}: nothing to test on"
                )
    return FoldSplits(home, folds, data.test, external_tests, {name: overlap[name] for name in data.test})
