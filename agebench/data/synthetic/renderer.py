"""Rendering of synthetic faces: age determines proportions, wrinkles, gray hair and skin. No photograph is used."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

Pixels = np.ndarray
Head = tuple[float, float, float, float]  # center x, center y, half width, half height, pixels of the 200 px frame

SKIN = {"light": (0.93, 0.77, 0.66), "medium": (0.78, 0.58, 0.44), "dark": (0.47, 0.32, 0.24)}
HAIR = ((0.11, 0.09, 0.08), (0.25, 0.16, 0.10), (0.45, 0.29, 0.16), (0.75, 0.60, 0.36))
IRIS = ((0.24, 0.16, 0.10), (0.25, 0.38, 0.50), (0.30, 0.40, 0.24))
GRAY = np.array((0.83, 0.83, 0.85))
# Positions in UTKFace's crops, pixels of a 200 px frame; the template of face alignment.
EYES = ((59.5, 61.0), (136.5, 60.5))
NOSE = (98.0, 118.0)


@dataclass(frozen=True)
class Person:
    """Properties of a person that are the same in every image."""

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
    """Shift between datasets; 0 for none.

    Attributes:
        blur: standard deviation, pixels of a 200 px frame.
        lighting: 0 to 1, darkness and one-sidedness of the light.
        palette: 0 to 1, fading of the colors toward those of an old print.
    """

    blur: float = 0.0
    lighting: float = 0.0
    palette: float = 0.0


@dataclass
class _Canvas:
    """An image that is being rendered.

    `near` returns a region that shares the memory, so that a wrinkle costs no more than its surroundings.

    Attributes:
        pixels: (3, h, w) float32 RGB, 0 to 1.
        u: (h, w) x coordinate of each pixel in the 200 px frame.
        v: (h, w) y coordinate of each pixel in the 200 px frame.
        face: (h, w) mask of the face, 0 to 1.
    """

    pixels: Pixels
    u: Pixels
    v: Pixels
    face: Pixels

    def near(self, x: float, y: float, radius: float) -> "_Canvas":
        """Return the region within `radius` of (x, y), with a margin for the pose."""
        columns = np.flatnonzero(np.abs(self.u[len(self.u) // 2] - x) < radius + 12)
        rows = np.flatnonzero(np.abs(self.v[:, self.v.shape[1] // 2] - y) < radius + 12)
        if not len(rows) or not len(columns):
            return _Canvas(self.pixels[:, :0, :0], self.u[:0, :0], self.v[:0, :0], self.face[:0, :0])
        region = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return _Canvas(self.pixels[:, *region], self.u[region], self.v[region], self.face[region])

    def ellipse(self, x: float, y: float, rx: float, ry: float, sharp: float = 8) -> Pixels:
        """Return a soft mask, 0 to 1, of an ellipse with center (x, y) and radii `rx` and `ry`."""
        distance = np.sqrt(((self.u - x) / rx) ** 2 + ((self.v - y) / ry) ** 2)
        return np.clip((1 - distance) * sharp + 0.5, 0, 1)

    def stroke(self, x: float, y: float, half_length: float, bend: float, width: float, tilt: float = 0.0) -> Pixels:
        """Return a soft mask of a line with center (x, y), displaced by `bend` at its ends.

        `tilt` in radians.
        """
        cosine, sine = math.cos(tilt), math.sin(tilt)
        along = (self.u - x) * cosine + (self.v - y) * sine
        across = (self.v - y) * cosine - (self.u - x) * sine - bend * (along / half_length) ** 2
        return np.exp(-((across / width) ** 2)) * np.clip((1 - np.abs(along) / half_length) * 3, 0, 1)

    def paint(self, color: Pixels, mask: Pixels, shade: Pixels | float = 1.0) -> None:
        """Blend a color, times `shade`, over the pixels by the mask."""
        shaded = _by_channel(color) * (shade if isinstance(shade, np.ndarray) else np.float32(shade))
        self.pixels += mask * (shaded - self.pixels)

    def darken(self, mask: Pixels, strength: float) -> None:
        """Darken the pixels by a share `strength` times the mask."""
        self.pixels *= 1 - strength * mask

    def line(
        self, x: float, y: float, half_length: float, bend: float, width: float, tilt: float, strength: float
    ) -> None:
        """Draw a dark line on the face, with the parameters of `stroke` and `darken`."""
        region = self.near(x, y, half_length + abs(bend))
        region.darken(region.stroke(x, y, half_length, bend, width, tilt) * region.face, strength)


def _by_channel(color: Pixels) -> Pixels:
    """Return a color (3,) as float32 (3, 1, 1), to be multiplied by masks."""
    return color.astype(np.float32)[:, None, None]


def draw_face(person: Person, age: float, conditions: DomainShift, rng: np.random.Generator, size: int) -> Image.Image:
    """Render a face.

    Args:
        person: the person.
        age: visible age, years.
        conditions: domain shift of the dataset.
        rng: source of pose, light, background and noise.
        size: side of the image, pixels.
    """
    young, old = float(np.clip(1 - age / 18, 0, 1)), float(np.clip((age + person.wrinkles_early - 25) / 55, 0, 1))
    u, v = _frame(rng, size)
    x, y = 98.0, 92.0 + 4 * young
    rx, ry = (66 + 5 * young) * person.width, 88 - 14 * young
    canvas = _Canvas(_background(rng, u, v), u, v, np.zeros_like(u))
    jaw = canvas.ellipse(x, y + 38, rx * (0.69 if person.gender == "female" else 0.74), ry * 0.62, 12)
    canvas.face = np.maximum(canvas.ellipse(x, y, rx, ry, 12), jaw)
    hair = _hair_color(person, age)
    _hair_behind(canvas, person, hair, age, (x, y, rx, ry))
    _skin(canvas, np.array(SKIN[person.tone]) * rng.uniform(0.93, 1.05) * (1 - 0.06 * old), young, (x, y, rx, ry))
    _skin_texture(canvas, old, rng)
    _eyes(canvas, person, hair, young, old)
    _nose_and_mouth(canvas, person, young, old)
    if old > 0:
        _wrinkles(canvas, old, rng)
    _hair_in_front(canvas, person, hair, age, (x, y, rx, ry))
    if person.gender == "male" and age > 17:
        _beard(canvas, hair, rng.uniform(0, 0.5))
    return _photograph(canvas.pixels, u, conditions, rng, size)


def _frame(rng: np.random.Generator, size: int) -> tuple[Pixels, Pixels]:
    """Return (size, size) x and y coordinates in the 200 px frame, with a random rotation, translation and zoom."""
    ticks = (np.arange(size, dtype=np.float32) + 0.5) * (200 / size) - 100
    x, y = ticks[None, :], ticks[:, None]
    angle, zoom = np.radians(rng.normal(0, 2.5)), np.exp(rng.normal(0, 0.02))
    shift = rng.normal(0, 1.5, 2)
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    u = cosine * x - sine * y + (100 - shift[0])
    v = sine * x + cosine * y + (100 - shift[1])
    return u.astype(np.float32), v.astype(np.float32)


def _background(rng: np.random.Generator, u: Pixels, v: Pixels) -> Pixels:
    first, second = rng.uniform(0.15, 0.9, (2, 3))
    gradient = np.clip((u * rng.uniform(-1, 1) + v) / 200, 0, 1)
    pixels: Pixels = first[:, None, None] * gradient + second[:, None, None] * (1 - gradient)
    return pixels.astype(np.float32)


def _hair_color(person: Person, age: float) -> Pixels:
    gray = 1 / (1 + np.exp(-(age + person.graying_rate - 52) / 6))
    color: Pixels = np.array(HAIR[person.hair]) * (1 - gray) + GRAY * gray
    return color


def _hair_behind(canvas: _Canvas, person: Person, hair: Pixels, age: float, head: Head) -> None:
    x, y, rx, ry = head
    if age < 2 or (person.bald and age > 45):
        return
    mask = canvas.ellipse(x, y - 12, rx * 1.17, ry * 1.06, 10)
    if person.gender == "female" and age > 3:
        mask = np.maximum(mask, canvas.ellipse(x, y + 45, rx * 1.22, ry * 1.1, 10))
    strands = 0.92 + 0.08 * np.sin((canvas.u - x) / 1.9 + (canvas.v - y) ** 2 / 900)
    canvas.paint(hair, mask, strands * (0.8 + 0.2 * canvas.v / 200))


def _hair_in_front(canvas: _Canvas, person: Person, hair: Pixels, age: float, head: Head) -> None:
    """Draw the hair above the hairline, which is low in children and recedes in men."""
    x, y, rx, ry = head
    if age < 1.5:
        return
    male = person.gender == "male"
    receding = 46.0 if person.bald and age > 45 else float(np.clip((age - 28) / 45, 0, 1)) * (22 if male else 6)
    line = y - ry + 20 + 7 * float(np.clip(1 - age / 10, 0, 1)) - receding
    mask = np.clip((line + (0.0035 if male else 0.006) * (canvas.u - x) ** 2 - canvas.v) / 5 + 0.5, 0, 1)
    strands = 0.92 + 0.08 * np.sin((canvas.u - x) / 1.7)
    canvas.paint(hair, mask * canvas.ellipse(x, y - 8, rx * 1.13, ry * 1.05, 10), strands)


def _skin(canvas: _Canvas, color: Pixels, young: float, head: Head) -> None:
    """Paint the skin with a shade that rounds the face, and the color of the cheeks."""
    x, y, rx, ry = head
    shade = 1 - 0.20 * np.clip(((canvas.u - x) / rx) ** 2 + ((canvas.v - y) / ry) ** 2, 0, 1.4) ** 2
    canvas.paint(color, canvas.face, shade)
    for cheek in (48.0, 148.0):
        region = canvas.near(cheek, 108, 45)
        mask = np.exp(-(((region.u - cheek) / 22) ** 2 + ((region.v - 108) / 18) ** 2)) * region.face
        region.pixels += mask * (0.02 + 0.10 * young) * _by_channel(np.array([1.0, -0.3, -0.2]))


def _skin_texture(canvas: _Canvas, old: float, rng: np.random.Generator) -> None:
    """Add skin texture: smooth in children, uneven and with spots in old people."""
    rough = rng.standard_normal(canvas.u.shape, dtype=np.float32)
    canvas.pixels *= 1 + np.float32(0.01 + 0.07 * old) * rough * canvas.face
    for _ in range(rng.poisson(14 * old**2)):
        x, y, rx, ry, strength = rng.uniform((30, 25, 2, 2, 0.1), (170, 165, 4.5, 4.5, 0.3))
        region = canvas.near(x, y, 6)
        region.darken(region.ellipse(x, y, rx, ry, 3) * region.face, strength)


def _eyes(canvas: _Canvas, person: Person, hair: Pixels, young: float, old: float) -> None:
    """Draw the eyes: large in children, smaller under heavier lids in old people."""
    female = person.gender == "female"
    scale = 1 + 0.28 * young
    opening = (8.5 - 2.8 * old) * scale
    for x, y in EYES:
        side = math.copysign(1, x - 98)
        region = canvas.near(x, y, 36)
        region.darken(region.ellipse(x, y, 25, 17, 1.2), 0.10 + 0.08 * old)
        eye = region.ellipse(x, y, 16 * scale, opening, 5)
        region.paint(np.array([0.96, 0.95, 0.93]) - 0.06 * old, eye)
        region.paint(np.array(IRIS[person.iris]), region.ellipse(x, y, 8 * scale, 8 * scale, 6) * eye)
        region.paint(np.array([0.03, 0.03, 0.04]), region.ellipse(x, y, 3.6 * scale, 3.6 * scale, 4) * eye)
        region.paint(np.ones(3), region.ellipse(x + 2.5, y - 3, 1.8, 1.8, 3) * eye * 0.9)
        region.darken(region.stroke(x, y - opening + 1, 18 * scale, 5, 1.6 + female), 0.75)
        # Lids fall over the outer corner with age.
        lid = region.stroke(x + side * 5, y - opening - 4 + 3 * old, 17, 3 + 4 * old, 1.3, side * 0.2 * old)
        region.darken(lid, 0.15 + 0.3 * old)
        brow = region.stroke(x + side * 2, y - 21 + 2 * young + 2 * old, 21, 5, 2.6 if female else 4.2, side * 0.06)
        region.paint(hair * 0.75, brow * (0.85 - 0.45 * young))


def _nose_and_mouth(canvas: _Canvas, person: Person, young: float, old: float) -> None:
    """Draw nose and mouth; lips become thinner and their corners sink with age."""
    female = person.gender == "female"
    x, y = NOSE
    region = canvas.near(x, y, 60)
    for side in (-1.0, 1.0):
        region.darken(region.stroke(x + side * 10, 92, 24, side * -4, 4, math.pi / 2), 0.12 + 0.06 * old - 0.08 * young)
        region.darken(region.ellipse(x + side * 8, y - 1, 5, 2.8, 2.5), 0.5)
    region.darken(region.stroke(x, y + 3, 18, -4, 2.2), 0.22)
    mouth, half = 148 - 7 * young + 2 * old, 27 - 4 * young
    lips = np.array([0.72, 0.30, 0.32]) if female else np.array([0.66, 0.38, 0.34])
    region.paint(lips, region.ellipse(x, mouth, half, (6.5 + female - 3.0 * old) * (1 - 0.2 * young), 4) * 0.8)
    region.darken(region.stroke(x, mouth, half + 1, -2.5 + 5 * old, 1.4), 0.6)


def _wrinkles(canvas: _Canvas, old: float, rng: np.random.Generator) -> None:
    """Draw wrinkles; with age: forehead, nasolabial folds, crow's feet, bags under the eyes, jowls."""
    for i in range(4):
        strength = float(np.clip(old * 5 - i, 0, 1)) * (0.10 + 0.28 * old)
        canvas.line(98 + rng.normal(0, 3), 36 - 8 * i, 46, rng.normal(-3, 1), 1.5, 0.0, strength)
    for side in (-1.0, 1.0):
        canvas.line(98 + side * 33, 132, 24, side * 5, 2.2, side * 1.15, 0.42 * old)
        for i in range(3):
            tilt = side * (i - 1) * 0.45
            canvas.line(98 + side * 67, 56 + 7 * i, 12, 0, 1.3, tilt, 0.5 * old * (old > 0.12 * i))
        canvas.line(98 + side * 38.5, 76 + 3 * old, 17, -4, 2.4, 0.0, 0.35 * old)
        canvas.line(98 + side * 44, 166, 20, side * 4, 3, side * 1.3, 0.30 * max(0.0, old - 0.4))


def _beard(canvas: _Canvas, hair: Pixels, strength: float) -> None:
    region = canvas.near(98, 160, 75)
    lower = np.clip((region.v - 122 - 0.003 * (region.u - 98) ** 2) / 14, 0, 1) * region.face
    region.paint(hair * 0.8, lower * (1 - region.ellipse(98, 148, 28, 7, 3)) * strength)


def _photograph(pixels: Pixels, u: Pixels, conditions: DomainShift, rng: np.random.Generator, size: int) -> Image.Image:
    """Apply light, fading, sensor noise and blur."""
    side = rng.choice([-1.0, 1.0])
    light = rng.uniform(0.88, 1.08) + rng.uniform(0, 0.12) * side * (u - 100) / 100
    light = light * (1 - 0.35 * conditions.lighting) * (1 + 0.6 * conditions.lighting * side * (u - 100) / 100)
    pixels = pixels * np.clip(light, 0.05, 2)
    if conditions.palette:
        red, green, blue = pixels
        scale, floor = np.array([1.08, 0.94, 0.74]), np.array([0.07, 0.04, 0.02])
        faded = (red + green + blue) / 3 * scale[:, None, None] + floor[:, None, None]
        pixels = pixels + conditions.palette * (faded - pixels)
    noise = rng.standard_normal((*u.shape, 3), dtype=np.float32)
    pixels = pixels.transpose(1, 2, 0) + 0.012 * noise
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(conditions.blur * size / 200)) if conditions.blur else image
