"""Drawing a face from numbers: age drives proportions, wrinkles, grey hair and skin; nothing is taken from any photograph."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

Pixels = np.ndarray
Head = tuple[float, float, float, float]  # centre x, y, half width, half height

SKIN = {"light": (0.93, 0.77, 0.66), "medium": (0.78, 0.58, 0.44), "dark": (0.47, 0.32, 0.24)}
HAIR = ((0.11, 0.09, 0.08), (0.25, 0.16, 0.10), (0.45, 0.29, 0.16), (0.75, 0.60, 0.36))
IRIS = ((0.24, 0.16, 0.10), (0.25, 0.38, 0.50), (0.30, 0.40, 0.24))
GREY = np.array((0.83, 0.83, 0.85))
# Where UTKFace's crops have them, in a frame of 200: the template that every face is brought to.
EYES = ((59.5, 61.0), (136.5, 60.5))
NOSE = (98.0, 118.0)


@dataclass(frozen=True)
class Person:
    """What stays the same in every picture of somebody."""

    gender: str
    tone: str
    hair: int
    iris: int
    width: float  # of the face, 1 for the average
    graying_rate: float  # years
    wrinkles_early: float  # years
    bald: bool


@dataclass(frozen=True)
class DomainShift:
    """What shifts a dataset away from another; 0 each for none.

    Attributes:
        blur: standard deviation in pixels of a 200 px frame.
        lighting: 0 to 1: how dark and how much from one side.
        palette: 0 to 1: how far colours fade towards an old print's.
    """

    blur: float = 0.0
    lighting: float = 0.0
    palette: float = 0.0


@dataclass
class Canvas:
    """A picture in the making: RGB, the 200 px frame's coordinates of every pixel, and where the face is.

    `near` gives a part of it that shares its memory, so that a wrinkle costs no more than its surroundings.
    """

    pixels: Pixels  # (h, w, 3) float32, 0 to 1
    u: Pixels  # (h, w)
    v: Pixels
    face: Pixels  # 0 to 1

    def near(self, x: float, y: float, radius: float) -> "Canvas":
        """The part within `radius` of (x, y), and a little more for the pose."""
        columns = np.flatnonzero(np.abs(self.u[len(self.u) // 2] - x) < radius + 12)
        rows = np.flatnonzero(np.abs(self.v[:, self.v.shape[1] // 2] - y) < radius + 12)
        if not len(rows) or not len(columns):
            return Canvas(self.pixels[:0, :0], self.u[:0, :0], self.v[:0, :0], self.face[:0, :0])
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return Canvas(self.pixels[part], self.u[part], self.v[part], self.face[part])

    def ellipse(self, x: float, y: float, rx: float, ry: float, sharp: float = 8) -> Pixels:
        """Soft mask, 0 to 1, of an ellipse."""
        distance = np.sqrt(((self.u - x) / rx) ** 2 + ((self.v - y) / ry) ** 2)
        return np.clip((1 - distance) * sharp + 0.5, 0, 1)

    def stroke(self, x: float, y: float, half_length: float, bend: float, width: float, tilt: float = 0.0) -> Pixels:
        """Soft mask of a line about (x, y), bent like a parabola by `bend` at its ends; `tilt` in radians."""
        cosine, sine = math.cos(tilt), math.sin(tilt)
        along = (self.u - x) * cosine + (self.v - y) * sine
        across = (self.v - y) * cosine - (self.u - x) * sine - bend * (along / half_length) ** 2
        return np.exp(-((across / width) ** 2)) * np.clip((1 - np.abs(along) / half_length) * 3, 0, 1)

    def paint(self, colour: Pixels, mask: Pixels, shade: Pixels | float = 1.0) -> None:
        """Lay a colour over where the mask is."""
        shaded = colour.astype(np.float32) * (shade[..., None] if isinstance(shade, np.ndarray) else np.float32(shade))
        self.pixels += mask[..., None] * (shaded - self.pixels)

    def darken(self, mask: Pixels, by: float) -> None:
        """Take a share of the light away where the mask is."""
        self.pixels *= (1 - by * mask)[..., None]

    def line(self, x: float, y: float, half_length: float, bend: float, width: float, tilt: float, by: float) -> None:
        """A dark line on the face."""
        part = self.near(x, y, half_length + abs(bend))
        part.darken(part.stroke(x, y, half_length, bend, width, tilt) * part.face, by)


def draw_face(
    person: Person, age: float, conditions: DomainShift, generator: np.random.Generator, size: int
) -> Image.Image:
    """`size` x `size` RGB; `generator` decides pose, light, background and noise."""
    young, old = float(np.clip(1 - age / 18, 0, 1)), float(np.clip((age + person.wrinkles_early - 25) / 55, 0, 1))
    u, v = _frame(generator, size)
    x, y = 98.0, 92.0 + 4 * young
    rx, ry = (66 + 5 * young) * person.width, 88 - 14 * young
    sketch = Canvas(_background(generator, u, v), u, v, np.zeros_like(u))
    jaw = sketch.ellipse(x, y + 38, rx * (0.69 if person.gender == "female" else 0.74), ry * 0.62, 12)
    sketch.face = np.maximum(sketch.ellipse(x, y, rx, ry, 12), jaw)
    hair = _hair_colour(person, age)
    _hair_behind(sketch, person, hair, age, (x, y, rx, ry))
    _skin(sketch, np.array(SKIN[person.tone]) * generator.uniform(0.93, 1.05) * (1 - 0.06 * old), young, (x, y, rx, ry))
    _skin_texture(sketch, old, generator)
    _eyes(sketch, person, hair, young, old)
    _nose_and_mouth(sketch, person, young, old)
    if old > 0:
        _wrinkles(sketch, old, generator)
    _hair_in_front(sketch, person, hair, age, (x, y, rx, ry))
    if person.gender == "male" and age > 17:
        _beard(sketch, hair, generator.uniform(0, 0.5))
    return _photograph(sketch.pixels, u, conditions, generator, size)


def _frame(generator: np.random.Generator, size: int) -> tuple[Pixels, Pixels]:
    """Coordinates in the 200 px frame, (size, size) each, with a little pose: turned, moved and zoomed about the centre."""
    ticks = (np.arange(size, dtype=np.float32) + 0.5) * (200 / size) - 100
    x, y = ticks[None, :], ticks[:, None]
    angle, zoom = np.radians(generator.normal(0, 2.5)), np.exp(generator.normal(0, 0.02))
    moved = generator.normal(0, 1.5, 2)
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    u = cosine * x - sine * y + (100 - moved[0])
    v = sine * x + cosine * y + (100 - moved[1])
    return u.astype(np.float32), v.astype(np.float32)


def _background(generator: np.random.Generator, u: Pixels, v: Pixels) -> Pixels:
    first, second = generator.uniform(0.15, 0.9, (2, 3))
    across = np.clip((u * generator.uniform(-1, 1) + v) / 200, 0, 1)[..., None]
    canvas: Pixels = (first * across + second * (1 - across)).astype(np.float32)
    return canvas


def _hair_colour(person: Person, age: float) -> Pixels:
    grey = 1 / (1 + np.exp(-(age + person.graying_rate - 52) / 6))
    colour: Pixels = np.array(HAIR[person.hair]) * (1 - grey) + GREY * grey
    return colour


def _hair_behind(sketch: Canvas, person: Person, hair: Pixels, age: float, head: Head) -> None:
    x, y, rx, ry = head
    if age < 2 or (person.bald and age > 45):
        return
    mask = sketch.ellipse(x, y - 12, rx * 1.17, ry * 1.06, 10)
    if person.gender == "female" and age > 3:
        mask = np.maximum(mask, sketch.ellipse(x, y + 45, rx * 1.22, ry * 1.1, 10))
    strands = 0.92 + 0.08 * np.sin((sketch.u - x) / 1.9 + (sketch.v - y) ** 2 / 900)
    sketch.paint(hair, mask, strands * (0.8 + 0.2 * sketch.v / 200))


def _hair_in_front(sketch: Canvas, person: Person, hair: Pixels, age: float, head: Head) -> None:
    """The hairline: low in children, receding in men."""
    x, y, rx, ry = head
    if age < 1.5:
        return
    male = person.gender == "male"
    receding = 46.0 if person.bald and age > 45 else float(np.clip((age - 28) / 45, 0, 1)) * (22 if male else 6)
    line = y - ry + 20 + 7 * float(np.clip(1 - age / 10, 0, 1)) - receding
    mask = np.clip((line + (0.0035 if male else 0.006) * (sketch.u - x) ** 2 - sketch.v) / 5 + 0.5, 0, 1)
    strands = 0.92 + 0.08 * np.sin((sketch.u - x) / 1.7)
    sketch.paint(hair, mask * sketch.ellipse(x, y - 8, rx * 1.13, ry * 1.05, 10), strands)


def _skin(sketch: Canvas, colour: Pixels, young: float, head: Head) -> None:
    """Rounded by shade, with the cheeks' colour."""
    x, y, rx, ry = head
    shade = 1 - 0.20 * np.clip(((sketch.u - x) / rx) ** 2 + ((sketch.v - y) / ry) ** 2, 0, 1.4) ** 2
    sketch.paint(colour, sketch.face, shade)
    for cheek in (48.0, 148.0):
        part = sketch.near(cheek, 108, 45)
        mask = np.exp(-(((part.u - cheek) / 22) ** 2 + ((part.v - 108) / 18) ** 2)) * part.face
        part.pixels += (mask * (0.02 + 0.10 * young))[..., None] * np.array([1.0, -0.3, -0.2], dtype=np.float32)


def _skin_texture(sketch: Canvas, old: float, generator: np.random.Generator) -> None:
    """Smooth in children, uneven and spotted in the old."""
    rough = generator.standard_normal(sketch.u.shape, dtype=np.float32)
    sketch.pixels *= (1 + np.float32(0.01 + 0.07 * old) * rough * sketch.face)[..., None]
    for _ in range(generator.poisson(14 * old**2)):
        x, y, rx, ry, by = generator.uniform((30, 25, 2, 2, 0.1), (170, 165, 4.5, 4.5, 0.3))
        part = sketch.near(x, y, 6)
        part.darken(part.ellipse(x, y, rx, ry, 3) * part.face, by)


def _eyes(sketch: Canvas, person: Person, hair: Pixels, young: float, old: float) -> None:
    """Large in children, smaller under heavier lids in the old."""
    female = person.gender == "female"
    big = 1 + 0.28 * young
    opening = (8.5 - 2.8 * old) * big
    for x, y in EYES:
        side = math.copysign(1, x - 98)
        part = sketch.near(x, y, 36)
        part.darken(part.ellipse(x, y, 25, 17, 1.2), 0.10 + 0.08 * old)
        eye = part.ellipse(x, y, 16 * big, opening, 5)
        part.paint(np.array([0.96, 0.95, 0.93]) - 0.06 * old, eye)
        part.paint(np.array(IRIS[person.iris]), part.ellipse(x, y, 8 * big, 8 * big, 6) * eye)
        part.paint(np.array([0.03, 0.03, 0.04]), part.ellipse(x, y, 3.6 * big, 3.6 * big, 4) * eye)
        part.paint(np.ones(3), part.ellipse(x + 2.5, y - 3, 1.8, 1.8, 3) * eye * 0.9)
        part.darken(part.stroke(x, y - opening + 1, 18 * big, 5, 1.6 + female), 0.75)
        # Lids fall over the outer corner with age.
        lid = part.stroke(x + side * 5, y - opening - 4 + 3 * old, 17, 3 + 4 * old, 1.3, side * 0.2 * old)
        part.darken(lid, 0.15 + 0.3 * old)
        brow = part.stroke(x + side * 2, y - 21 + 2 * young + 2 * old, 21, 5, 2.6 if female else 4.2, side * 0.06)
        part.paint(hair * 0.75, brow * (0.85 - 0.45 * young))


def _nose_and_mouth(sketch: Canvas, person: Person, young: float, old: float) -> None:
    """Lips thin and their corners sink with age."""
    female = person.gender == "female"
    x, y = NOSE
    part = sketch.near(x, y, 60)
    for side in (-1.0, 1.0):
        part.darken(part.stroke(x + side * 10, 92, 24, side * -4, 4, math.pi / 2), 0.12 + 0.06 * old - 0.08 * young)
        part.darken(part.ellipse(x + side * 8, y - 1, 5, 2.8, 2.5), 0.5)
    part.darken(part.stroke(x, y + 3, 18, -4, 2.2), 0.22)
    mouth, half = 148 - 7 * young + 2 * old, 27 - 4 * young
    lips = np.array([0.72, 0.30, 0.32]) if female else np.array([0.66, 0.38, 0.34])
    part.paint(lips, part.ellipse(x, mouth, half, (6.5 + female - 3.0 * old) * (1 - 0.2 * young), 4) * 0.8)
    part.darken(part.stroke(x, mouth, half + 1, -2.5 + 5 * old, 1.4), 0.6)


def _wrinkles(sketch: Canvas, old: float, generator: np.random.Generator) -> None:
    """Forehead, nose to mouth, crow's feet, bags under the eyes, jowls: in this order with age."""
    for number in range(4):
        strength = float(np.clip(old * 5 - number, 0, 1)) * (0.10 + 0.28 * old)
        sketch.line(98 + generator.normal(0, 3), 36 - 8 * number, 46, generator.normal(-3, 1), 1.5, 0.0, strength)
    for side in (-1.0, 1.0):
        sketch.line(98 + side * 33, 132, 24, side * 5, 2.2, side * 1.15, 0.42 * old)
        for number in range(3):
            tilt = side * (number - 1) * 0.45
            sketch.line(98 + side * 67, 56 + 7 * number, 12, 0, 1.3, tilt, 0.5 * old * (old > 0.12 * number))
        sketch.line(98 + side * 38.5, 76 + 3 * old, 17, -4, 2.4, 0.0, 0.35 * old)
        sketch.line(98 + side * 44, 166, 20, side * 4, 3, side * 1.3, 0.30 * max(0.0, old - 0.4))


def _beard(sketch: Canvas, hair: Pixels, strength: float) -> None:
    part = sketch.near(98, 160, 75)
    lower = np.clip((part.v - 122 - 0.003 * (part.u - 98) ** 2) / 14, 0, 1) * part.face
    part.paint(hair * 0.8, lower * (1 - part.ellipse(98, 148, 28, 7, 3)) * strength)


def _photograph(
    canvas: Pixels, u: Pixels, conditions: DomainShift, generator: np.random.Generator, size: int
) -> Image.Image:
    """Light, blur, fading and the sensor's noise."""
    side = generator.choice([-1.0, 1.0])
    light = generator.uniform(0.88, 1.08) + generator.uniform(0, 0.12) * side * (u - 100) / 100
    light = light * (1 - 0.35 * conditions.lighting) * (1 + 0.6 * conditions.lighting * side * (u - 100) / 100)
    canvas = canvas * np.clip(light, 0.05, 2)[..., None]
    if conditions.palette:
        faded = canvas.mean(axis=2, keepdims=True) * np.array([1.08, 0.94, 0.74]) + np.array([0.07, 0.04, 0.02])
        canvas = canvas + conditions.palette * (faded - canvas)
    canvas = canvas + 0.012 * generator.standard_normal(canvas.shape, dtype=np.float32)
    image = Image.fromarray((np.clip(canvas, 0, 1) * 255).round().astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(conditions.blur * size / 200)) if conditions.blur else image
