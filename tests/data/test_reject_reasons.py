"""Which rejected images count as failures to process, by code, and by the texts of records of version 0.1."""

import ast
from pathlib import Path

import pandas as pd
import pytest

import agebench.data
from agebench.data.reject_reasons import (
    FAILURES_TO_PROCESS,
    TITLES,
    code_of_old_text,
    count_titles,
    failures_to_process,
)
from agebench.data.samples import Rejected, Samples, rejected_rows
from agebench.errors import ImageRejectedError, RejectReason

SOURCES = sorted(Path(agebench.data.__file__).parent.rglob("*.py"))

# As version 0.1 wrote them to manifests and records, where what differs from image to image is `…`.
OLD_FAILURES = [
    "cannot be read: Input/output error",
    "not an image in a format that is read here",
    "a damaged image: image file is truncated (… bytes not processed)",
    "more than the … million pixels allowed",
    "… x … pixels are more than the … million allowed",
    "https://example.org/….jpg: cannot be reached: gone",
    "http://example.org/….jpg: cannot be reached: gone",
    "no face found",
    "no box is annotated: four corners, eight numbers",
    "no landmarks are annotated",
    "… landmarks are annotated, and the card asks for points (31, 36, 41): it needs three of them",
    "its landmarks fall together: no transform brings them to the template",
    "its landmarks ask for a face of more than 20,000 pixels",
    "its body_bbox … … … … leaves the image, which is … x … pixels",
    "its body_bbox 7 7 7 7 is empty: it must be left, top, right, bottom in pixels",
]
OLD_OTHERS = [
    "also in the training set",
    "excluded by no face found.csv",
    "age … is outside [0, 120]",
    "age … is outside the protocol's [18, 60)",
    "nothing says its age",
    "its name 'a' is not age_gender_race_time",
    "no file '7.jpg'",
    "its path '../a' leads out of the dataset's folder",
    "no box of a face",
    "no image of this name, or several",
    "its aligned_bbox is not eight numbers",
    "",
]


def test_every_refused_image_has_a_code_of_a_failure() -> None:
    raised = [
        (source.name, node.exc)
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    ]
    refused = [(name, call) for name, call in raised if getattr(call.func, "id", "") == "ImageRejectedError"]
    # A person whose face is annotated as not visible is asked of no model that sees faces alone.
    not_asked = {RejectReason.NO_FACE_BOX}
    assert len(refused) > 12
    for name, call in refused:
        assert len(call.args) == 2, f"{name}: ImageRejectedError without a code"
        assert isinstance(call.args[1], ast.Attribute)
        assert RejectReason[call.args[1].attr] in FAILURES_TO_PROCESS | not_asked, f"{name}: {call.args[1].attr}"


def test_every_code_has_a_title() -> None:
    assert set(TITLES) == set(RejectReason)


@pytest.mark.parametrize("text", OLD_FAILURES)
def test_old_texts_of_failures_are_failures(text: str) -> None:
    assert code_of_old_text(text) in FAILURES_TO_PROCESS
    assert failures_to_process(None, {text: 3}) == 3


@pytest.mark.parametrize("text", OLD_OTHERS)
def test_old_texts_of_other_reasons_are_none(text: str) -> None:
    assert code_of_old_text(text) not in FAILURES_TO_PROCESS
    assert failures_to_process(None, {text: 3}) == 0


def test_codes_count_where_a_record_has_them() -> None:
    assert failures_to_process({"no-face": 2, "no-age": 5, "of-a-later-version": 9}, {"no face found": 40}) == 2
    assert failures_to_process({}, {"no face found": 40}) == 0
    assert failures_to_process(None, None) == 0


def test_titles_hold_no_path_but_the_name_of_a_list() -> None:
    rows = [Rejected(name, name, RejectReason.MISSING_FILE, f"no file '{name}'") for name in ("a.jpg", "b.jpg")]
    rows += [Rejected("c", "c", RejectReason.EXCLUDED, f"excluded by {name}") for name in ("x.csv", "y.csv")]
    counts = count_titles(rejected_rows(rows))
    assert counts == {"no image file at the path": 2, "excluded by x.csv": 1, "excluded by y.csv": 1}


def test_quarantine_tables_of_old_plugins_are_read() -> None:
    old = pd.DataFrame([("a", "a.jpg", "too blue")], columns=["sample_id", "path", "reason"])
    table = Samples(pd.DataFrame({"sample_id": []}), rejected=old).rejected
    assert table.to_dict("records") == [{"sample_id": "a", "path": "a.jpg", "code": "other", "reason": "too blue"}]
    assert rejected_rows([("a", "a.jpg", "too blue")]).equals(table)


def test_a_refusal_keeps_its_code_between_processes() -> None:
    import pickle

    refusal = pickle.loads(pickle.dumps(ImageRejectedError("no face found", RejectReason.NO_FACE)))
    assert (str(refusal), refusal.reason) == ("no face found", RejectReason.NO_FACE)
