import inspect
import io

import numpy as np
import pytest
from PIL import Image

from agebench.data.faces.alignment import TEMPLATE
from agebench.data.readers.synth import SynthReader
from agebench.data.synthetic.renderer import DomainShift, Person, draw_face
from agebench.errors import UserError

PLAIN = Person("female", "light", hair=0, iris=1, width=1.0, graying_rate=0.0, wrinkles_early=0.0, bald=False)


def pixels(reader: SynthReader, number: int) -> np.ndarray:
    encoded = reader.image_bytes(f"synth-{number:06d}.png")
    return np.asarray(Image.open(io.BytesIO(encoded))).astype(float)


def drawn(age: float, person: Person = PLAIN, seed: int = 0, **shift: float) -> np.ndarray:
    image = draw_face(person, age, DomainShift(**shift), np.random.default_rng(seed), 100)
    return np.asarray(image).astype(float)


def test_the_seed_and_the_number_decide_alone() -> None:
    few, many, other = SynthReader(None, count=10), SynthReader(None, count=500), SynthReader(None, count=10, seed=9)
    path = "synth-000007.png"
    assert few.image_bytes(path) == many.image_bytes(path)
    assert few.image_bytes(path) != other.image_bytes(path)
    draw = inspect.unwrap(SynthReader._render)  # neither the reader nor the tests remember what it drew
    assert draw(few, 7) == draw(many, 7) == few.image_bytes(path)
    assert few.version_token(path) == many.version_token(path) != other.version_token(path)


def test_samples_are_whole() -> None:
    samples = SynthReader(None, ("gender", "race"), count=400).read()
    assert len(samples) == 400
    assert samples.table["age"].between(1, 90).all()
    assert samples.table["subject"].value_counts().unique().tolist() == [2]
    assert set(samples.table["gender"]) == {"female", "male"}
    assert set(samples.table["race"]) == {"light", "medium", "dark"}
    assert samples.table.groupby("subject")["race"].nunique().max() == 1


def test_hair_greys_and_skin_roughens_with_age() -> None:
    def hair(age: float) -> float:
        return float(np.mean([drawn(age, seed=seed)[60:95, 18:24].mean() for seed in range(5)]))

    def roughness(age: float) -> float:
        cheeks = [drawn(age, seed=seed)[48:62, 20:32].mean(axis=2) for seed in range(5)]
        return float(np.mean([np.abs(np.diff(cheek, axis=1)).mean() for cheek in cheeks]))

    assert hair(80) > hair(20) + 60
    assert roughness(5) < roughness(45) < roughness(85)


def test_eyes_lie_on_the_template() -> None:
    mean = np.mean([drawn(30, seed=seed).mean(axis=2) for seed in range(40)], axis=0)
    for x, y in TEMPLATE[:2] * 100:
        around = mean[round(y) - 8 : round(y) + 8, round(x) - 8 : round(x) + 8]
        dark = (around.max() - around) ** 3
        rows, columns = np.indices(around.shape) + 0.5
        assert (columns * dark).sum() / dark.sum() == pytest.approx(8, abs=1.5)
        assert (rows * dark).sum() / dark.sum() == pytest.approx(8, abs=2.5)


@pytest.mark.parametrize("knob", [{"blur": 3.0}, {"lighting": 0.8}, {"palette": 0.8}])
def test_a_knob_changes_pictures_and_no_label(knob: dict[str, float]) -> None:
    plain, shifted = SynthReader(None, count=20), SynthReader(None, count=20, **knob)
    assert plain.read().table.equals(shifted.read().table)
    assert np.abs(pixels(plain, 3) - pixels(shifted, 3)).mean() > 2


def test_a_planted_bias_hides_the_age_of_that_group_alone() -> None:
    plain = SynthReader(None, count=60)
    biased = SynthReader(None, count=60, bias_group="race=dark", bias_strength=1.0)
    table = plain.read().table
    changed = np.array([np.abs(pixels(plain, number) - pixels(biased, number)).max() > 0 for number in range(60)])
    assert (changed == (table["race"] == "dark").to_numpy()).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count = 0"),
        ({"lighting": 2}, "lighting = 2"),
        ({"bias_group": "race=blue"}, "bias_group = 'race=blue': must be empty or one of gender=female"),
        ({"bias_strength": -1}, "bias_strength = -1"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as refused:
        SynthReader(None, **options)  # type: ignore[arg-type]
    assert message in str(refused.value)
