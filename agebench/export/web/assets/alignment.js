// Face alignment as in agebench: the eyes and the nose base come to the positions at which the model was trained.

import { clamp, cropWithEdge, makeImage, resize, roundHalfEven, warpBicubic } from "./pixels.js";

const MAX_REGION = 20000; // pixels

export class RejectedFace extends Error {}

// Align a face. `points` are [x, y] of the image-left eye, the image-right eye and the nose base; `input` is that of model.json.
export function alignFace(image, input, points) {
  const template = input.template.map(([x, y]) => [x * input.size, y * input.size]);
  return hideSurroundings(warp(image, estimateSimilarity(template, points), input.size), input);
}

// Crop an image that is framed like UTKFace's crops already.
export function cropFace(image, input) {
  const side = Math.min(image.width, image.height);
  const scale = (side * input.crop_scale) / input.size;
  const left = (image.width - side) / 2 + (side * (1 - input.crop_scale)) / 2;
  const top = (image.height - side) / 2 + (side * (1 - input.crop_scale)) / 2 - input.offset * input.size * scale;
  return hideSurroundings(warp(image, [[scale, 0, left], [0, scale, top]], input.size), input);
}

// The similarity transform with the least squared error that maps `source` to `target` (Umeyama 1991, without reflections).
export function estimateSimilarity(source, target) {
  const [sourceCenter, targetCenter] = [center(source), center(target)];
  let [real, imaginary, norm] = [0, 0, 0];
  source.forEach(([x, y], index) => {
    const [u, v] = [x - sourceCenter[0], y - sourceCenter[1]];
    const [s, t] = [target[index][0] - targetCenter[0], target[index][1] - targetCenter[1]];
    real += u * s + v * t;
    imaginary += u * t - v * s;
    norm += u * u + v * v;
  });
  [real, imaginary] = [real / norm, imaginary / norm];
  const factor = Math.hypot(real, imaginary);
  if (!Number.isFinite(factor) || factor < 1e-3) throw new RejectedFace("The points lie on top of one another.");
  return [
    [real, -imaginary, targetCenter[0] - real * sourceCenter[0] + imaginary * sourceCenter[1]],
    [imaginary, real, targetCenter[1] - imaginary * sourceCenter[0] - real * sourceCenter[1]],
  ];
}

function center(points) {
  const total = points.reduce(([x, y], [u, v]) => [x + u, y + v], [0, 0]);
  return [total[0] / points.length, total[1] / points.length];
}

// Sample a square of `size` pixels at the positions that `matrix` maps to; reductions are low-pass filtered.
function warp(image, matrix, size) {
  const corners = [[0, 0], [size, 0], [0, size], [size, size]].map(([x, y]) => matrix.map(([a, b, c]) => a * x + b * y + c));
  const low = [0, 1].map((axis) => Math.floor(Math.min(...corners.map((corner) => corner[axis]))) - 2);
  const high = [0, 1].map((axis) => Math.ceil(Math.max(...corners.map((corner) => corner[axis]))) + 2);
  if (high[0] - low[0] > MAX_REGION || high[1] - low[1] > MAX_REGION) throw new RejectedFace("The points are too far apart.");
  const region = cropWithEdge(image, low[0], low[1], high[0], high[1]);
  const [[a, b, c], [d, e, f]] = [
    [matrix[0][0], matrix[0][1], matrix[0][2] - low[0]],
    [matrix[1][0], matrix[1][1], matrix[1][2] - low[1]],
  ];
  if (Math.abs(b) <= 1e-8 && Math.abs(d) <= 1e-8) return resize(region, size, size, [c, f, c + a * size, f + a * size]);
  const reduction = Math.hypot(a, d);
  if (reduction <= 1) return warpBicubic(region, [[a, b, c], [d, e, f]], size);
  const width = Math.max(1, roundHalfEven(region.width / reduction));
  const height = Math.max(1, roundHalfEven(region.height / reduction));
  const [factorX, factorY] = [width / region.width, height / region.height];
  const reduced = [[a * factorX, b * factorX, c * factorX], [d * factorY, e * factorY, f * factorY]];
  return warpBicubic(resize(region, width, height), reduced, size);
}

// Repeat the edge of the visible region outside it, so that faces show no more than the faces that the model was trained on.
function hideSurroundings(face, { size, crop_scale: cropScale, offset, visible }) {
  if (!visible) return face;
  const reach = visible / cropScale / 2;
  const [columns, rows] = [0.5, 0.5 + offset].map((middle) => {
    const low = roundHalfEven((middle - reach) * size);
    const high = roundHalfEven((middle + reach) * size - 1);
    return Array.from({ length: size }, (_, index) => clamp(Math.min(Math.max(index, low), high), 0, size - 1));
  });
  const shown = makeImage(size, size);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const origin = 4 * (rows[y] * size + columns[x]);
      shown.data.set(face.data.subarray(origin, origin + 4), 4 * (y * size + x));
    }
  }
  return shown;
}

// Faces as the tensor that the model reads: (N, 3, S, S), RGB.
export function toPlanes(faces, size) {
  const planes = new Uint8Array(faces.length * 3 * size * size);
  faces.forEach((face, index) => {
    for (let channel = 0; channel < 3; channel++) {
      const offset = (3 * index + channel) * size * size;
      for (let pixel = 0; pixel < size * size; pixel++) planes[offset + pixel] = face.data[4 * pixel + channel];
    }
  });
  return planes;
}
