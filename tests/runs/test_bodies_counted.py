"""How many images had a body, as manifest and report state it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from agebench.data.samples import Samples
from agebench.reports.making_text import faces_in_words
from agebench.runs.records import count_bodies


def test_report_states_how_many_images_had_a_body() -> None:
    boxes = [[0.0, 0.0, 9.0, 9.0], None, [0.0, 0.0, 5.0, 5.0], None]
    samples = {"few": Samples(pd.DataFrame({"sample_id": list("abcd"), "body_bbox": boxes}))}
    faces: dict[str, Any] = {"few": SimpleNamespace(pixels=np.zeros((4, 2, 2, 6)), refused={"c": "no face found"})}
    found = count_bodies(samples, faces)
    assert found == {"bodies": {"few": {"images": 3, "with_body": 1}}}
    text = faces_in_words({"faces": {"size": 2, "datasets": {"few": "none"}, **found}})
    assert "Of 3 images of few, 1 had a body beside the face." in text
    alone: dict[str, Any] = {"few": SimpleNamespace(pixels=np.zeros((4, 2, 2, 3)), refused={})}
    assert count_bodies(samples, alone) == {}
