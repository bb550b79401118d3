"""Detections from five points: conversion to the landmarks of alignment, and searches at several scales."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from agebench.data.faces.detectors.base import Detection

# The nose base lies this share of the way from the tip to the middle of the mouth: 0.42 on FG-NET (point 41 of its 68),
# 0.39 on All-Age-Faces, least squares over 600 photographs each.
NOSE_BASE_SHARE = 0.4


class Search(NamedTuple):
    """One search for faces.

    Attributes:
        side: longest side of the searched image, pixels; larger images are reduced to it.
        border: width of a border that repeats the image's edge, as a share of the longest side of the searched image.
    """

    side: int
    border: float = 0.0


# Pixels of a searched image: array -> faces in its pixels.
SearchFunction = Callable[[np.ndarray], list[Detection]]


def detection_from_points(box: Sequence[float], points: np.ndarray, score: float) -> Detection:
    """Return a detection with the landmarks that alignment uses.

    Args:
        box: left, top, right, bottom, pixels.
        points: (5, 2) as `Detection.five_points`.
        score: confidence.
    """
    left, top, right, bottom = (float(edge) for edge in box)
    return Detection(
        (left, top, right, bottom),
        landmarks_from(points[0], points[1], points[2], points[3:].mean(axis=0)),
        float(score),
        points,
    )


def landmarks_from(
    left_eye: np.ndarray, right_eye: np.ndarray, nose_tip: np.ndarray, mouth_center: np.ndarray
) -> np.ndarray:
    """Return (3, 2) eyes and nose base of a face whose nose tip is known.

    Args:
        left_eye: (2,) x, y of the image-left eye.
        right_eye: (2,) x, y of the image-right eye.
        nose_tip: (2,) x, y of the tip of the nose.
        mouth_center: (2,) x, y of the middle of the mouth.
    """
    return np.stack([left_eye, right_eye, nose_tip + NOSE_BASE_SHARE * (mouth_center - nose_tip)])


def search_faces(image: Image.Image, searches: Sequence[Search], function: SearchFunction) -> list[Detection]:
    """Search an image with one setting after the other until faces are detected.

    Args:
        image: an upright RGB photograph.
        searches: the settings, in order; a search whose pixels are those of the one before is skipped.
        function: detects faces in an array of (H, W, 3) uint8 RGB pixels.

    Returns:
        Detections in pixels of `image`; those outside it are left out.
    """
    searched: set[tuple[tuple[int, int], int]] = set()
    for search in searches:
        reduced, scale = _reduce_image(image, search.side)
        border = round(search.border * max(reduced.size))
        if (reduced.size, border) in searched:
            continue
        searched.add((reduced.size, border))
        pixels = np.asarray(reduced)
        if border:
            pixels = np.pad(pixels, ((border, border), (border, border), (0, 0)), mode="edge")
        faces = [_moved(face, border, scale) for face in function(np.ascontiguousarray(pixels))]
        faces = [face for face in faces if _is_inside(face, image.size)]
        if faces:
            return faces
    return []


def _reduce_image(image: Image.Image, side: int) -> tuple[Image.Image, np.ndarray]:
    """Reduce an image whose longest side is larger than `side`.

    Args:
        image: the image.
        side: pixels.

    Returns:
        The image, and (2,) by how much its width and its height were divided.
    """
    factor = max(image.size) / side
    if factor <= 1:
        return image, np.ones(2)
    size = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0), np.array(image.size) / size


def _moved(face: Detection, border: int, scale: np.ndarray) -> Detection:
    box = (np.array(face.box).reshape(2, 2) - border) * scale
    five = None if face.five_points is None else (face.five_points - border) * scale
    left, top, right, bottom = (float(edge) for edge in box.ravel())
    return Detection((left, top, right, bottom), (face.landmarks - border) * scale, face.score, five)


def _is_inside(face: Detection, size: tuple[int, int]) -> bool:
    """Return whether the box overlaps the image, and the eyes and the nose lie near it."""
    left, top, right, bottom = face.box
    overlaps = right > 0 and bottom > 0 and left < size[0] and top < size[1] and right > left and bottom > top
    extent = np.array(size, dtype=np.float64)
    return bool(overlaps and (face.landmarks >= -extent).all() and (face.landmarks <= 2 * extent).all())
