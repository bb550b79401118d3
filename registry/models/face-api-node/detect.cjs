// face-api.js as its README uses it: SSD MobileNet v1, 68 landmarks, then age and gender of the aligned face; defaults throughout.

const path = require('path');
const tf = require('@tensorflow/tfjs');
const wasm = require('@tensorflow/tfjs-backend-wasm');
const faceapi = require('@vladmandic/face-api/dist/face-api.node-wasm.js');
const { run } = require('./photos.cjs');

const packages = path.join(__dirname, 'node_modules');

async function main() {
  wasm.setWasmPaths(`${path.join(packages, '@tensorflow', 'tfjs-backend-wasm', 'dist')}/`);
  wasm.setThreadsCount(Number(process.env.OMP_NUM_THREADS || 1));
  await tf.setBackend('wasm');
  await tf.ready();
  const models = path.join(packages, '@vladmandic', 'face-api', 'model');
  for (const net of ['ssdMobilenetv1', 'faceLandmark68Net', 'ageGenderNet']) await faceapi.nets[net].loadFromDisk(models);
  await run(async ({ data, width, height }) => {
    const image = tf.tensor3d(new Uint8Array(data), [height, width, 3], 'int32');
    try {
      const faces = await faceapi.detectAllFaces(image).withFaceLandmarks().withAgeAndGender();
      return faces.map(({ age, gender, detection: { box } }) => ({ age, gender, box: [box.left, box.top, box.right, box.bottom] }));
    } finally {
      tf.dispose(image);
    }
  });
}

main();
