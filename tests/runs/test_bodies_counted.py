"""How many images had a body, as manifest and report state it."""

import numpy as np

from agebench.data.faces.cache import FaceCache
from agebench.reports.manifest import RunManifest
from agebench.reports.sections.provenance import describe_faces
from agebench.runs.artifacts import count_bodies


def test_report_states_how_many_images_had_a_body() -> None:
    pixels = np.zeros((4, 2, 2, 6), dtype=np.uint8)
    pixels[:3, ..., :3] = 90  # three faces
    pixels[2:, ..., 3:] = 40  # two bodies, one of them without a face
    counts = count_bodies(FaceCache(pixels, {name: row for row, name in enumerate("abcd")}, {}))
    assert counts == {"rows": 4, "body": 2, "body_alone": 1}
    text = describe_faces(
        RunManifest.model_validate({"faces": {"size": 2, "datasets": {"few": "none"}, "bodies": {"few": counts}}})
    )
    assert "Of few, 2 of 4 rows show a body, 1 of them without a face." in text
