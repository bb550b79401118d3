// Read the CSV of photographs that agebench writes, decode them, and write the CSV of faces that it reads.

const fs = require('fs');
const sharp = require('sharp');

// The fields of a line of a CSV file, of which some may be quoted.
function fields(line) {
  const found = line.match(/("([^"]|"")*"|[^,]*)(,|$)/g) || [];
  return found.map((field) => field.replace(/,$/, '')).map((field) => (
    field.startsWith('"') ? field.slice(1, -1).replace(/""/g, '"') : field));
}

function quoted(text) {
  return /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

function readPaths(file) {
  const [header, ...lines] = fs.readFileSync(file, 'utf8').split(/\r?\n/).filter((line) => line.length > 0);
  const column = fields(header).indexOf('path');
  return lines.map((line) => fields(line)[column]);
}

// Pixels of a photograph as RGB bytes, row by row; agebench has turned it upright.
async function readPixels(path) {
  const { data, info } = await sharp(path).toColourspace('srgb').removeAlpha().raw()
    .toBuffer({ resolveWithObject: true });
  if (info.channels === 3) return { data, width: info.width, height: info.height };
  const rgb = Buffer.alloc(info.width * info.height * 3);
  for (let pixel = 0; pixel < info.width * info.height; pixel += 1) rgb.fill(data[pixel * info.channels], 3 * pixel, 3 * pixel + 3);
  return { data: rgb, width: info.width, height: info.height };
}

// Detect faces in all photographs: `detect(pixels)` gives { age, box: [left, top, right, bottom], gender } for each face.
// A photograph that cannot be processed counts as one without a face.
async function run(detect) {
  const [input, output] = process.argv.slice(2);
  const rows = ['path,age,left,top,right,bottom,gender'];
  for (const path of readPaths(input)) {
    let faces = [];
    try {
      faces = await detect(await readPixels(path));
    } catch (error) {
      console.error(`${path}: ${error.message}`);
    }
    if (faces.length === 0) rows.push(`${quoted(path)},,,,,,`);
    for (const face of faces) rows.push([quoted(path), face.age, ...face.box, face.gender || ''].join(','));
  }
  fs.writeFileSync(output, `${rows.join('\n')}\n`);
}

module.exports = { run };
