"""Reader for UTKFace: `age_gender_race_time.jpg.chip.jpg` (Zhang, Song and Qi, CVPR 2017)."""

import re

import pandas as pd

from agebench.data.readers import Reader
from agebench.data.readers.base import list_images, to_samples
from agebench.data.samples import Rejected, Samples
from agebench.types import RejectReason

GENDER = {"0": "male", "1": "female"}
RACE = {"0": "White", "1": "Black", "2": "Asian", "3": "Indian", "4": "Others"}
# 55_0_0_20170116232725357jpg.chip.jpg lacks a dot, `24_0_1_20170116220224657 .jpg.chip.jpg` has an extra space. Browsers and
# file managers add ` (1).jpg`, `.jpg.chip.jpg.jpg` and ` - Copy.jpg` to a second download.
_ENDING = re.compile(r"(?:\s*(?:\.?jpe?g|\.chip|\.[a-z]+|\(\d{1,3}\)|- Copy))+$", re.IGNORECASE)
# The time identifies the image; it has 16 to 18 digits. Gender or race may be missing or empty.
_STEM = re.compile(r"(?P<age>[^_]+)_(?:(?P<gender>[01]?)_)?(?:(?P<race>[0-4]?)_)?(?P<time>\d{14,20})")


class UTKFaceReader(Reader):
    """Reader for the aligned and cropped faces, or the photographs, in a folder of any depth.

    Columns: gender (female, male), race (White, Black, Asian, Indian, Others); no subjects. A sample_id is the file's name
    without suffixes. If gender or race is missing, the remaining digit is the gender if it is 0 or 1, else the race; the
    other label is unknown.
    """

    def read(self) -> Samples:
        """Read all images; reject those whose name has another form."""
        images, rejected = list_images(self.root)
        rows = []
        for path in images:
            stem = _ENDING.sub("", path.rpartition("/")[2])
            match = _STEM.fullmatch(stem)
            if match is None:
                reason = f"its name '{stem}' is not age_gender_race_time"
                rejected.append(Rejected(stem, path, RejectReason.NAME_PATTERN, reason))
            else:
                age, gender, race, _ = match.groups()
                rows.append((stem, path, age, GENDER.get(gender), RACE.get(race)))
        table = pd.DataFrame(rows, columns=["sample_id", "path", "age", "gender", "race"])
        return to_samples(table, rejected, self.groups, source=str(self.root))
