"""Which image does what in one run."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from agebench.data.cache import Faces
from agebench.data.samples import Samples
from agebench.data.splits import split, without_overlap
from agebench.errors import UserError
from agebench.runs.config import DataConfig


@dataclass(frozen=True)
class Division:
    """The samples of one run.

    Attributes:
        home: the training set's name.
        train, val: parts of the training set.
        tests: test set's name -> samples; the training set's own name stands for its held-out part.
        duplicates: exact copies within the training set; they stay on one side of its split.
        straddling: images of an official split left out because their double stands in a later part.
        overlap: test set's name -> images dropped from it because they also stand in train or val.
    """

    home: str
    train: Samples
    val: Samples
    tests: dict[str, Samples]
    duplicates: int
    straddling: int
    overlap: dict[str, int]

    def parts(self) -> dict[str, tuple[str, Samples]]:
        """File name -> (dataset, samples), for everything that is kept of a run's samples."""
        return {
            f"{self.home}-train": (self.home, self.train),
            f"{self.home}-val": (self.home, self.val),
            **{f"{name}-test": (name, test) for name, test in self.tests.items()},
        }

    def with_faces(self, faces: dict[str, Faces]) -> "Division":
        """Less the samples in which no face could be prepared, which go to quarantine.

        Raises:
            UserError: nothing is left of a part.
        """
        kept = self._each(lambda name, samples: faces[name].keep(samples))
        for part, (name, samples) in kept.parts().items():
            if not len(samples):
                raise UserError(
                    f"{part}: no face could be prepared in any of its images; does `faces` on the card of '{name}' fit?"
                )
        return kept

    def _each(self, change: Callable[[str, Samples], Samples]) -> "Division":
        return replace(
            self,
            train=change(self.home, self.train),
            val=change(self.home, self.val),
            tests={name: change(name, test) for name, test in self.tests.items()},
        )


def task_classes(home: str, training: Samples, name: str) -> tuple[str, ...]:
    """The classes of the label column `name` in the training part, sorted.

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


def divide(data: DataConfig, samples: dict[str, Samples], *, seed: int) -> Division:
    """Split the training set; test on its held-out part, and on all of every other set less what training saw.

    Raises:
        UserError: too few samples, or a test set that stands in the training set altogether.
    """
    home = split(samples[data.train], test=data.test_share, val=data.val_share, seed=seed, source=data.train)
    tests, overlap = {data.train: home.test}, {data.train: 0}
    for name in data.test:
        if name != data.train:
            tests[name], overlap[name] = without_overlap(samples[name], [home.train, home.val])
    for name, test in tests.items():
        if not len(test):
            raise UserError(
                f"{name}: every one of its images also stands in {data.train}'s training part: nothing to test on"
            )
    return Division(
        home=data.train,
        train=home.train,
        val=home.val,
        tests={name: tests[name] for name in data.test},
        duplicates=home.duplicates,
        straddling=home.straddling,
        overlap={name: overlap[name] for name in data.test},
    )
