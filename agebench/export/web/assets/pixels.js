// Pixel operations with the results of Pillow. An image is {width, height, data}: RGBA, 8 bits a channel, as in ImageData.

const PRECISION_BITS = 22; // fixed-point coefficients of Pillow's resize
const HALF = 1 << (PRECISION_BITS - 1);
const CHANNELS = 3; // alpha is not read

export function makeImage(width, height) {
  return { width, height, data: new Uint8ClampedArray(4 * width * height).fill(255) };
}

// Round to the nearest integer, halves to the even one, as Python does.
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

// Copy the region [left, right) x [top, bottom); pixels outside the image repeat its edge.
export function cropWithEdge(image, left, top, right, bottom) {
  const crop = makeImage(right - left, bottom - top);
  const source = new Uint32Array(image.data.buffer, image.data.byteOffset, image.width * image.height);
  const target = new Uint32Array(crop.data.buffer);
  const columns = Int32Array.from({ length: crop.width }, (_, x) => clamp(left + x, 0, image.width - 1));
  for (let y = 0; y < crop.height; y++) {
    const row = clamp(top + y, 0, image.height - 1) * image.width;
    for (let x = 0; x < crop.width; x++) target[y * crop.width + x] = source[row + columns[x]];
  }
  return crop;
}

export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// Resize with a triangle filter, which is widened for reductions. `box` is [left, top, right, bottom] in pixels of the image.
export function resize(image, width, height, box = [0, 0, image.width, image.height]) {
  let resized = image;
  if (width !== image.width || box[0] !== 0 || box[2] !== width) {
    resized = resample(resized, width, box[0], box[2], false);
  }
  if (height !== image.height || box[1] !== 0 || box[3] !== height) {
    resized = resample(resized, height, box[1], box[3], true);
  }
  return resized;
}

function resample(image, length, start, end, isVertical) {
  const inputLength = isVertical ? image.height : image.width;
  const lines = isVertical ? image.width : image.height;
  const output = isVertical ? makeImage(image.width, length) : makeImage(length, image.height);
  const step = isVertical ? 4 * image.width : 4;
  const outputStep = isVertical ? 4 * output.width : 4;
  const lineStep = isVertical ? 4 : 4 * image.width;
  const outputLineStep = isVertical ? 4 : 4 * output.width;
  const taps = filterTaps(inputLength, length, start, end);
  const [source, pixels] = [image.data, output.data];
  for (let line = 0; line < lines; line++) {
    for (let position = 0; position < length; position++) {
      const { first, weights } = taps[position];
      const origin = line * lineStep + first * step;
      const target = line * outputLineStep + position * outputStep;
      let [red, green, blue] = [HALF, HALF, HALF];
      for (let tap = 0, index = origin; tap < weights.length; tap++, index += step) {
        red += source[index] * weights[tap];
        green += source[index + 1] * weights[tap];
        blue += source[index + 2] * weights[tap];
      }
      pixels[target] = red >> PRECISION_BITS; // a Uint8ClampedArray clamps
      pixels[target + 1] = green >> PRECISION_BITS;
      pixels[target + 2] = blue >> PRECISION_BITS;
    }
  }
  return output;
}

function filterTaps(inputLength, length, start, end) {
  [start, end] = [Math.fround(start), Math.fround(end)]; // Pillow's boxes are of single precision
  const scale = Math.fround(end - start) / length;
  const support = Math.max(scale, 1);
  return Array.from({ length }, (_, position) => {
    const center = start + (position + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const last = Math.min(Math.trunc(center + support + 0.5), inputLength);
    const weights = [];
    for (let x = first; x < last; x++) weights.push(Math.max(1 - Math.abs((x - center + 0.5) / support), 0));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const fixed = weights.map((weight) => Math.trunc(0.5 + (total ? weight / total : weight) * (1 << PRECISION_BITS)));
    return { first, weights: Int32Array.from(fixed) };
  });
}

// Average blocks of `factorX` x `factorY` pixels; blocks at the right and lower edge may be smaller.
function reduce(image, factorX, factorY) {
  const reduced = makeImage(Math.ceil(image.width / factorX), Math.ceil(image.height / factorY));
  for (let y = 0; y < reduced.height; y++) {
    const bottom = Math.min((y + 1) * factorY, image.height);
    for (let x = 0; x < reduced.width; x++) {
      const right = Math.min((x + 1) * factorX, image.width);
      const count = (bottom - y * factorY) * (right - x * factorX);
      const multiplier = Math.floor(2 ** 24 / count);
      for (let channel = 0; channel < CHANNELS; channel++) {
        let sum = Math.floor(count / 2);
        for (let row = y * factorY; row < bottom; row++) {
          for (let column = x * factorX; column < right; column++) {
            sum += image.data[4 * (row * image.width + column) + channel];
          }
        }
        reduced.data[4 * (y * reduced.width + x) + channel] = Math.floor((sum * multiplier) / 2 ** 24);
      }
    }
  }
  return reduced;
}

// Resize after a reduction by whole factors, as Pillow's `reducing_gap=1.0`: for large photographs several times faster.
export function reduceAndResize(image, width, height) {
  const factorX = Math.trunc(image.width / width) || 1;
  const factorY = Math.trunc(image.height / height) || 1;
  if (factorX === 1 && factorY === 1) return resize(image, width, height);
  const box = [0, 0, image.width / factorX, image.height / factorY];
  return resize(reduce(image, factorX, factorY), width, height, box);
}

// Sample a square of `size` pixels with a bicubic kernel (a = -1). `matrix` maps output to input pixels: [[a, b, c], [d, e, f]].
export function warpBicubic(image, matrix, size) {
  const output = makeImage(size, size);
  const [[a, b, c], [d, e, f]] = matrix;
  const limitX = image.width - 1;
  const rows = new Float64Array(4);
  const columns = new Int32Array(4);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const target = 4 * (y * size + x);
      const sourceX = a * (x + 0.5) + b * (y + 0.5) + c;
      const sourceY = d * (x + 0.5) + e * (y + 0.5) + f;
      if (sourceX < 0 || sourceX >= image.width || sourceY < 0 || sourceY >= image.height) {
        output.data.fill(0, target, target + CHANNELS);
        continue;
      }
      const left = Math.floor(sourceX - 0.5);
      const top = Math.floor(sourceY - 0.5);
      const shiftX = sourceX - 0.5 - left;
      const shiftY = sourceY - 0.5 - top;
      for (let tap = 0; tap < 4; tap++) columns[tap] = 4 * clamp(left - 1 + tap, 0, limitX);
      for (let channel = 0; channel < CHANNELS; channel++) {
        for (let tap = 0; tap < 4; tap++) {
          const origin = 4 * clamp(top - 1 + tap, 0, image.height - 1) * image.width + channel;
          rows[tap] = cubic(
            image.data[origin + columns[0]],
            image.data[origin + columns[1]],
            image.data[origin + columns[2]],
            image.data[origin + columns[3]],
            shiftX,
          );
        }
        output.data[target + channel] = Math.trunc(clamp(cubic(rows[0], rows[1], rows[2], rows[3], shiftY), 0, 255));
      }
    }
  }
  return output;
}

function cubic(v1, v2, v3, v4, shift) {
  return v2 + shift * (v3 - v1 + shift * (2 * (v1 - v2) + v3 - v4 + shift * (v2 - v1 + v4 - v3)));
}
