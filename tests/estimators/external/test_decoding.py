"""Ages and genders from the outputs of external models."""

from pathlib import Path

import numpy as np
import pytest

from agebench.config.cards.external import ExternalCard, ExternalInput
from agebench.config.toml_io import validate_model
from agebench.errors import UserError
from agebench.estimators.external.base import estimate
from agebench.estimators.external.decoding import parse_output, parse_outputs
from agebench.estimators.external.io_spec import ExternalModelError, prepare
from agebench.estimators.external.photos import DetectedFaces, Photo, select_faces

PROBS = np.array([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4]])


def card(output: dict[str, object], **keys: object) -> ExternalCard:
    base = {"name": "it", "title": "It", "licence": "ours", "format": "onnx", "source": "it.onnx", "output": output}
    return validate_model(ExternalCard, base | keys, source="this test")


@pytest.mark.parametrize(
    ("decode", "ages"),
    [
        ("", [0.1 * 1 + 0.6 * 24.5 + 0.3 * 70, 0.5 * 1 + 0.1 * 24.5 + 0.4 * 70]),
        ("argmax", [24.5, 1.0]),
        ("top2", [(0.6 * 24.5 + 0.3 * 70) / 0.9, (0.5 * 1 + 0.4 * 70) / 0.9]),
    ],
)
def test_brackets_are_decoded_by_their_middles(decode: str, ages: list[float]) -> None:
    output = {"kind": "distribution", "brackets": [[0, 2], [20, 29], [60, 80]], "decode": decode}
    np.testing.assert_allclose(parse_output(PROBS, 2, card(output)).age, ages)


def test_stated_ages_take_precedence_over_brackets() -> None:
    output = {"kind": "distribution", "brackets": [[0, 2], [20, 29], [60, 80]], "ages": [1, 20, 65], "decode": "argmax"}
    assert parse_output(PROBS, 2, card(output)).age.tolist() == [20, 1]


def test_ages_of_the_models_file_are_used_where_the_card_states_none() -> None:
    output = {"kind": "distribution", "decode": "argmax"}
    assert parse_output(PROBS, 2, card(output), ages=[5, 25, 45]).age.tolist() == [25, 5]


def test_own_function_decodes_a_distribution(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy as np\ndef ages(p):\n    print('noise')\n    return p.argmax(axis=1) + 10 * p.max(axis=1)\n"
        "def probs(faces):\n    return np.tile([0.1, 0.6, 0.3], (len(faces), 1))\n"
    )
    keys = {"format": "callable", "source": "own.py:probs", "input": {"size": 16}}
    model = card({"kind": "distribution", "ages": [1, 2, 3], "decode": "own.py:ages"}, **keys).located(tmp_path)
    faces = np.zeros((3, 16, 16, 3), np.uint8)
    np.testing.assert_allclose(estimate(model, faces, np.arange(3)).age, [7.0] * 3)


@pytest.mark.parametrize(
    "output",
    [
        {"decode": "argmax"},
        {"kind": "distribution", "decode": "median"},
        {"kind": "distribution", "brackets": [[9, 3]]},
        {"kind": "distribution", "brackets": [[0, 2], [3, 9]], "ages": [1]},
        {"gender": {"columns": [0, 1, 2]}},
    ],
)
def test_contradictory_outputs_are_refused(output: dict[str, object]) -> None:
    with pytest.raises(UserError):
        card(output)


@pytest.mark.parametrize(
    ("gender", "raw", "expected"),
    [
        ({"columns": [1, 2]}, [[30, 0.2, 0.8], [40, 1.0, 0.0]], [[0.2, 0.8], [1.0, 0.0]]),
        ({"columns": [1]}, [[30, 0.8], [40, 0.0]], [[0.2, 0.8], [1.0, 0.0]]),
        ({"columns": [1], "logits": True}, [[30, np.log(4)], [40, 0.0]], [[0.2, 0.8], [0.5, 0.5]]),
        ({"columns": [0, 2], "logits": True}, [[np.log(3), 30, 0.0], [0.0, 40, 0.0]], [[0.75, 0.25], [0.5, 0.5]]),
    ],
)
def test_gender_is_read_from_columns(gender: dict[str, object], raw: object, expected: object) -> None:
    model = card({"column": 1 if gender["columns"] == [0, 2] else 0, "gender": gender})
    estimates = parse_outputs([np.array(raw), np.array(raw)], 2, model)
    np.testing.assert_allclose(estimates.tasks["gender"], expected, atol=1e-6)
    assert estimates.age.tolist() == [30, 40]


def test_gender_that_is_no_probability_is_refused() -> None:
    model = card({"column": 0, "gender": {"columns": [1]}})
    with pytest.raises(ExternalModelError, match=r"output\.gender gives no probabilities"):
        parse_outputs([np.array([[30.0, 3.0]])] * 2, 1, model)


@pytest.mark.parametrize(
    ("classes", "width"), [(("female", "male"), 3), (("female", "male"), 0), (("female", "male", "other"), 1)]
)
def test_gender_of_another_width_is_refused(classes: tuple[str, ...], width: int) -> None:
    model = card({"gender": {"name": "1", "classes": classes}})
    with pytest.raises(ExternalModelError, match=f"gives {width} numbers a face for the gender"):
        parse_outputs([np.array([30.0, 40.0]), np.full((2, width), 0.5)], 2, model)


def test_genders_of_several_widths_in_photographs_are_refused() -> None:
    model = card({"gender": {"name": "gender"}})
    faces = [DetectedFaces(np.array([30.0]), np.zeros((0, 4)), np.full((1, width), 0.5)) for width in (1, 2)]
    with pytest.raises(ExternalModelError, match="gives 1 and 2 numbers for the gender of a face"):
        select_faces(faces, [Photo(name, b"", None, None) for name in "ab"], model)


def test_min_max_stretches_each_face_over_all_channels() -> None:
    faces = np.zeros((2, 4, 4, 3), np.uint8)
    faces[0, 0, 0], faces[0, 1, 1], faces[1] = (50, 60, 70), (100, 150, 250), 9
    faces[0][faces[0] == 0] = 50
    spec = ExternalInput(size=16, normalize="min-max", channels="bgr", value_range=(-1, 1), layout="nhwc")
    values = prepare(faces, spec)
    assert (values[0].min(), values[0].max()) == (-1, 1)
    np.testing.assert_allclose(values[0, 1, 1], [1, 0, -0.5], atol=1e-6)
    assert np.isfinite(values[1]).all()
