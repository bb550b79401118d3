// Human as the package is configured: its face detector, mesh, crop and age model; without parts that do not affect the age.

const fs = require('fs');
const path = require('path');
const tf = require('@tensorflow/tfjs-core');
const wasm = require('@tensorflow/tfjs-backend-wasm');
const { run } = require('./photos.cjs');

const packages = path.join(__dirname, 'node_modules');
// By its path, because the package's list of exports does not lead to it.
const { Human } = require(path.join(packages, '@vladmandic', 'human', 'dist', 'human.node-wasm.js'));
const off = { enabled: false };

// Models are read from disk: the package's build for Node would fetch them.
function readModel(url) {
  const file = url.replace('file://', '');
  const model = JSON.parse(fs.readFileSync(file, 'utf8'));
  const buffers = model.weightsManifest.flatMap((group) => group.paths).map((name) => fs.readFileSync(path.join(path.dirname(file), name)));
  const bytes = Buffer.concat(buffers);
  return {
    ...model,
    weightSpecs: model.weightsManifest.flatMap((group) => group.weights),
    weightData: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length),
  };
}

async function main() {
  tf.io.registerLoadRouter((url) => (typeof url === 'string' && url.startsWith('file://') ? { load: async () => readModel(url) } : null));
  wasm.setThreadsCount(Number(process.env.OMP_NUM_THREADS || 1));
  const human = new Human({
    backend: 'wasm',
    wasmPath: `${path.join(packages, '@tensorflow', 'tfjs-backend-wasm', 'dist')}/`,
    modelBasePath: `file://${path.join(packages, '@vladmandic', 'human', 'models')}/`,
    skipAllowed: false, // every photograph shows another person
    cacheSensitivity: 0,
    face: { emotion: off },
    body: off,
    hand: off,
    object: off,
    gesture: off,
    segmentation: off,
  });
  await human.init();
  await human.load();
  await run(async ({ data, width, height }) => {
    const image = human.tf.tensor4d(new Uint8Array(data), [1, height, width, 3], 'int32');
    try {
      const { face } = await human.detect(image);
      return face.filter(({ age }) => age > 0).map(({ age, box: [left, top, w, h] }) => ({ age, box: [left, top, left + w, top + h] }));
    } finally {
      human.tf.dispose(image);
    }
  });
}

main();
