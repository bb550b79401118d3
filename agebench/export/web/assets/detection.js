// YuNet (Wu et al., Machine Intelligence Research 2023) as OpenCV runs it, with agebench's searches at several scales.

import { cropWithEdge, reduceAndResize, roundHalfEven } from "./pixels.js";

const STRIDES = [8, 16, 32];
const DIVISOR = 32; // of the sides of the network's input

// Find the faces of an image, the largest first: {box: [left, top, right, bottom], points: [[x, y] x 3], score}.
// `run` calls the network: Float32Array (1, 3, height, width), BGR, 0 to 255 -> {name: Float32Array}.
export async function findFaces(image, detector, run) {
  const searched = new Set();
  for (const search of detector.searches) {
    const { reduced, scale } = reduceImage(image, search.side);
    const border = roundHalfEven(search.border * Math.max(reduced.width, reduced.height));
    const key = `${reduced.width} ${reduced.height} ${border}`;
    if (searched.has(key)) continue;
    searched.add(key);
    const pixels = border
      ? cropWithEdge(reduced, -border, -border, reduced.width + border, reduced.height + border)
      : reduced;
    const { input, width, height } = networkInput(pixels);
    const candidates = decode(await run(input, width, height), width, height, detector.min_score);
    const faces = suppress(candidates, detector.max_overlap)
      .map((candidate) => toFace(candidate, border, scale, detector.nose_base_share))
      .filter((face) => isInside(face, image));
    if (faces.length) return faces.sort((one, other) => area(other.box) - area(one.box));
  }
  return [];
}

function reduceImage(image, side) {
  const factor = Math.max(image.width, image.height) / side;
  if (factor <= 1) return { reduced: image, scale: [1, 1] };
  const width = Math.max(1, roundHalfEven(image.width / factor));
  const height = Math.max(1, roundHalfEven(image.height / factor));
  return { reduced: reduceAndResize(image, width, height), scale: [image.width / width, image.height / height] };
}

// The sides become multiples of 32 by black pixels on the right and at the bottom.
function networkInput(image) {
  const width = DIVISOR * Math.ceil(image.width / DIVISOR);
  const height = DIVISOR * Math.ceil(image.height / DIVISOR);
  const input = new Float32Array(3 * width * height);
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < image.height; y++) {
      for (let x = 0; x < image.width; x++) {
        input[((2 - channel) * height + y) * width + x] = image.data[4 * (y * image.width + x) + channel];
      }
    }
  }
  return { input, width, height };
}

function decode(outputs, width, height, minScore) {
  const candidates = [];
  for (const stride of STRIDES) {
    const [classes, objects] = [outputs[`cls_${stride}`], outputs[`obj_${stride}`]];
    const [boxes, keypoints] = [outputs[`bbox_${stride}`], outputs[`kps_${stride}`]];
    const columns = width / stride;
    for (let index = 0; index < classes.length; index++) {
      const score = Math.sqrt(unit(classes[index]) * unit(objects[index]));
      if (!(score > minScore)) continue;
      const [column, row] = [index % columns, Math.floor(index / columns)];
      const [dx, dy, logWidth, logHeight] = boxes.subarray(4 * index, 4 * index + 4);
      const [boxWidth, boxHeight] = [Math.exp(logWidth) * stride, Math.exp(logHeight) * stride];
      const [left, top] = [(column + dx) * stride - boxWidth / 2, (row + dy) * stride - boxHeight / 2];
      const five = Array.from({ length: 5 }, (_, point) => [
        (keypoints[10 * index + 2 * point] + column) * stride,
        (keypoints[10 * index + 2 * point + 1] + row) * stride,
      ]);
      candidates.push({ left, top, width: boxWidth, height: boxHeight, five, score });
    }
  }
  return candidates;
}

function unit(value) {
  return Math.min(Math.max(value, 0), 1);
}

// Non-maximum suppression; as in OpenCV, on boxes of whole pixels.
function suppress(candidates, maxOverlap) {
  const kept = [];
  for (const candidate of candidates.sort((one, other) => other.score - one.score)) {
    if (kept.every((face) => overlap(face, candidate) <= maxOverlap)) kept.push(candidate);
  }
  return kept;
}

function overlap(one, other) {
  const [a, b] = [one, other].map(({ left, top, width, height }) => [left, top, width, height].map(Math.trunc));
  const width = Math.max(Math.min(a[0] + a[2], b[0] + b[2]) - Math.max(a[0], b[0]), 0);
  const height = Math.max(Math.min(a[1] + a[3], b[1] + b[3]) - Math.max(a[1], b[1]), 0);
  const union = a[2] * a[3] + b[2] * b[3] - width * height;
  return union > 0 ? (width * height) / union : 0;
}

// Coordinates of the photograph, and the nose base from the tip of the nose and the corners of the mouth.
function toFace({ left, top, width, height, five, score }, border, scale, noseBaseShare) {
  const move = ([x, y]) => [(x - border) * scale[0], (y - border) * scale[1]];
  const [leftEye, rightEye, tip, leftCorner, rightCorner] = five;
  const base = [0, 1].map((axis) => tip[axis] + noseBaseShare * ((leftCorner[axis] + rightCorner[axis]) / 2 - tip[axis]));
  const box = [...move([left, top]), ...move([left + width, top + height])];
  return { box, points: [leftEye, rightEye, base].map(move), score };
}

function isInside({ box: [left, top, right, bottom], points }, { width, height }) {
  const overlaps = right > 0 && bottom > 0 && left < width && top < height && right > left && bottom > top;
  return overlaps && points.every(([x, y]) => x >= -width && y >= -height && x <= 2 * width && y <= 2 * height);
}

function area([left, top, right, bottom]) {
  return (right - left) * (bottom - top);
}
