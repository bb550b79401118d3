// The page: takes a photograph, finds and aligns the faces, estimates their ages with the model, all in this browser.

import { alignFace, cropFace, RejectedFace, toPlanes } from "./alignment.js";
import { findFaces } from "./detection.js";
import * as ort from "./runtime/ort.wasm.min.mjs";

const MAX_PIXELS = 16_000_000; // browsers on phones draw no more; larger photographs are reduced
const GRAY = "rgb(127, 127, 127)"; // behind transparent pixels, as in agebench
const POINT_NAMES = ["Eye on the left of the photograph", "Eye on the right of the photograph", "Base of the nose, above the lip"];
const POINT_STEP = 0.004; // share of the photograph's side that an arrow key moves a point; 5 times as much with Shift
const MAX_LISTED = 12;

const element = (id) => document.getElementById(id);
const canvas = element("canvas");
let page; // content of model.json
let estimator, yunet; // inference sessions
let photo = null; // {image: ImageData, isDrawn: whether it is the example, faces: found faces, points: marked points}
let latest = 0; // number of the latest request; the results of earlier ones are not shown

start().catch((error) => report(`The page cannot start: ${error.message}`, true));

async function start() {
  ort.env.wasm.numThreads = 1; // threads need headers that a plain web server does not send
  ort.env.wasm.wasmPaths = new URL("runtime/", location.href).href;
  page = await (await fetchFile("model.json")).json();
  describeModel();
  const megabytes = Math.round(page.download_bytes / 1e6);
  report(`Loading the model, ${megabytes} MB …`);
  [estimator, yunet] = await Promise.all([page.model.file, page.detector.file].map(openModel));
  report("Ready.");
  listen();
}

async function fetchFile(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
}

async function openModel(name) {
  const bytes = new Uint8Array(await (await fetchFile(name)).arrayBuffer());
  return ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
}

function listen() {
  element("modes").disabled = false;
  element("file").addEventListener("change", ({ target }) => {
    if (target.files.length) openPhoto(target.files[0], "find");
    target.value = ""; // the same file can be chosen again
  });
  element("example").addEventListener("click", async () => openPhoto(await (await fetchFile(page.example)).blob(), "crop", true));
  element("modes").addEventListener("change", () => photo && update());
  const stage = element("stage");
  stage.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
  stage.addEventListener("dragleave", () => stage.classList.remove("over"));
  stage.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    openFirst(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => openFirst(event.clipboardData.files));
}

function openFirst(files) {
  if (files.length) openPhoto(files[0], "find");
}

// Decode an image file, upright, in its own color values, as agebench does.
async function openPhoto(file, mode, isDrawn = false) {
  const request = ++latest;
  report("Reading the photograph …");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    if (request === latest) report("This browser cannot read that file as an image. JPEG, PNG and WebP work everywhere.", true);
    return;
  }
  if (request !== latest) return;
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (bitmap.width * bitmap.height)));
  canvas.width = Math.max(1, Math.floor(bitmap.width * scale));
  canvas.height = Math.max(1, Math.floor(bitmap.height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  context.fillStyle = GRAY;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  photo = { image: context.getImageData(0, 0, canvas.width, canvas.height), isDrawn, faces: null, points: null };
  element("stage").classList.remove("empty");
  element("hint").hidden = true;
  element("picture").hidden = false;
  document.querySelector(`input[value="${mode}"]`).checked = true;
  await update();
}

// Estimate the faces of the photograph in the chosen mode, and show them.
async function update() {
  const request = ++latest;
  const current = photo;
  const mode = document.querySelector('input[name="mode"]:checked').value;
  showOverlay([], []);
  try {
    report(mode === "find" ? "Searching for faces …" : "Estimating …");
    await nextFrame();
    const crops = await cropFaces(current, mode);
    if (request !== latest) return;
    if (mode === "mark") showOverlay([], current.points);
    if (mode === "find") showOverlay(current.faces, []);
    await showEstimates(crops, request, mode);
  } catch (error) {
    if (request !== latest) return;
    showResults([], []);
    report(error instanceof RejectedFace ? error.message : `No estimate: ${error.message}`, true);
  }
}

async function cropFaces(current, mode) {
  if (mode === "crop") return [cropFace(current.image, page.input)];
  if (current.faces === null) current.faces = await findFaces(current.image, page.detector, runDetector);
  if (mode === "find") return current.faces.slice(0, MAX_LISTED).map((face) => alignFace(current.image, page.input, face.points));
  current.points ??= current.faces.length ? current.faces[0].points.map((point) => [...point]) : middlePoints(current.image);
  return [alignFace(current.image, page.input, current.points)];
}

async function showEstimates(crops, request, mode) {
  const start = performance.now();
  const estimates = crops.length ? await estimate(crops) : [];
  if (request !== latest) return;
  showResults(crops, estimates);
  const milliseconds = Math.round(performance.now() - start);
  const hidden = mode === "find" ? photo.faces.length - crops.length : 0;
  if (!crops.length) report("No face found. Mark the eyes and the nose yourself, or choose another photograph.", true);
  else if (mode === "mark") report("Drag the three points onto the eyes and the base of the nose; arrow keys move them, too.");
  else if (hidden) report(`${photo.faces.length} faces found; the ${MAX_LISTED} largest are shown.`);
  else {
    const warning = photo.isDrawn ? " It is drawn: the model was trained on photographs." : "";
    report(`${crops.length === 1 ? "One face" : `${crops.length} faces`}, estimated in ${milliseconds} ms.${warning}`);
  }
}

async function runDetector(input, width, height) {
  const outputs = await yunet.run({ input: new ort.Tensor("float32", input, [1, 3, height, width]) });
  return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data]));
}

// Ages and intervals of aligned faces, in years; an interval is null if the model has none.
async function estimate(crops) {
  const { size } = page.input;
  const images = new ort.Tensor("uint8", toPlanes(crops, size), [crops.length, 3, size, size]);
  const outputs = await estimator.run({ images }, page.output.std ? ["age", "std"] : ["age"]);
  return crops.map((_, index) => {
    const age = outputs.age.data[index];
    if (!page.interval) return { age, low: null, high: null };
    const unit = page.interval.scaled ? Math.max(outputs.std.data[index], 1e-6) : 1;
    const halfWidth = page.interval.radius * unit;
    return { age, low: Math.max(age - halfWidth, 0), high: age + halfWidth };
  });
}

function middlePoints(image) {
  const side = 0.6 * Math.min(image.width, image.height);
  return page.input.template.map(([x, y]) => [image.width / 2 + (x - 0.5) * side, image.height / 2 + (y - 0.5) * side]);
}

function showResults(crops, estimates) {
  element("none").hidden = estimates.length > 0;
  element("results").replaceChildren(...estimates.map((each, index) => resultItem(crops[index], each, index, estimates.length)));
}

function resultItem(crop, { age, low, high }, index, count) {
  const face = make("canvas", { width: crop.width, height: crop.height });
  face.getContext("2d").putImageData(new ImageData(crop.data, crop.width, crop.height), 0, 0);
  face.setAttribute("role", "img");
  face.setAttribute("aria-label", `Aligned face ${index + 1}, as the model sees it`);
  const text = make("div");
  text.append(make("div", { className: "age", textContent: `${count > 1 ? `${index + 1}: ` : ""}about ${Math.round(age)} years` }));
  if (low !== null) {
    const level = Math.round(100 * page.interval.level);
    const range = `${level} % interval: ${Math.round(low)} to ${Math.round(high)} years`;
    text.append(make("div", { className: "range", textContent: range }));
  }
  text.append(ageAxis(age, low, high));
  const item = make("li");
  Object.assign(item.dataset, { age, low: low ?? "", high: high ?? "" });
  item.append(face, text);
  return item;
}

function ageAxis(age, low, high) {
  const [first, last] = page.output.ages;
  const percent = (years) => `${(100 * (Math.min(Math.max(years, first), last) - first)) / (last - first)}%`;
  const axis = make("div", { className: "axis" });
  axis.setAttribute("aria-hidden", "true");
  if (low !== null) {
    const band = make("div", { className: "band" });
    band.style.left = percent(low);
    band.style.right = `calc(100% - ${percent(high)})`;
    axis.append(band);
  }
  const point = make("div", { className: "point" });
  point.style.left = percent(age);
  axis.append(point);
  for (const years of [first, ...[20, 40, 60, 80].filter((each) => each > first && each < last), last]) {
    const tick = make("span", { className: years === first ? "tick first" : "tick", textContent: years });
    tick.style.left = percent(years);
    axis.append(tick);
  }
  return axis;
}

// Boxes of found faces and points to drag, placed by shares of the picture, so that they follow its size.
function showOverlay(faces, points) {
  const picture = element("picture");
  picture.replaceChildren(canvas, ...faces.slice(0, MAX_LISTED).map(faceBox), ...points.map((_, index) => pointMarker(index)));
}

function faceBox({ box: [left, top, right, bottom] }, index, faces) {
  const box = make("div", { className: "box" });
  place(box, Math.max(left, 0), Math.max(top, 0));
  box.style.width = `${(100 * (Math.min(right, canvas.width) - Math.max(left, 0))) / canvas.width}%`;
  box.style.height = `${(100 * (Math.min(bottom, canvas.height) - Math.max(top, 0))) / canvas.height}%`;
  if (faces.length > 1) box.append(make("span", { textContent: index + 1 }));
  return box;
}

function place(node, x, y) {
  node.style.left = `${(100 * x) / canvas.width}%`;
  node.style.top = `${(100 * y) / canvas.height}%`;
}

function pointMarker(index) {
  const marker = make("button", { type: "button", className: "marker", title: POINT_NAMES[index] });
  marker.setAttribute("aria-label", `${POINT_NAMES[index]}; arrow keys move it`);
  place(marker, ...photo.points[index]);
  const move = (x, y) => {
    photo.points[index] = [Math.min(Math.max(x, 0), canvas.width), Math.min(Math.max(y, 0), canvas.height)];
    place(marker, ...photo.points[index]);
    updateMarked();
  };
  marker.addEventListener("pointerdown", (event) => marker.setPointerCapture(event.pointerId));
  marker.addEventListener("pointermove", (event) => {
    if (!marker.hasPointerCapture(event.pointerId)) return;
    const area = canvas.getBoundingClientRect();
    move(((event.clientX - area.left) * canvas.width) / area.width, ((event.clientY - area.top) * canvas.height) / area.height);
  });
  marker.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!direction) return;
    event.preventDefault();
    const step = POINT_STEP * Math.max(canvas.width, canvas.height) * (event.shiftKey ? 5 : 1);
    const [x, y] = photo.points[index];
    move(x + step * direction[0], y + step * direction[1]);
  });
  return marker;
}

// Estimate anew after a point moved; at most once a frame, and the markers stay.
function updateMarked() {
  const request = ++latest;
  requestAnimationFrame(async () => {
    if (request !== latest) return;
    try {
      await showEstimates([alignFace(photo.image, page.input, photo.points)], request, "mark");
    } catch (error) {
      showResults([], []);
      report(error.message, true);
    }
  });
}

function describeModel() {
  const { model, interval, tests } = page;
  element("model").textContent = `${model.name}: ${model.title}, trained on ${model.training_data}.`;
  const level = interval && Math.round(100 * interval.level);
  element("interval").textContent = interval
    ? `The interval was set on ${interval.calibrated_on} to contain ${level}\u00a0% of the true ages of such faces. On other faces it need ` +
      "not; the table below has the share on each test set."
    : "This model states no interval.";
  const head = make("tr");
  const titles = ["Test set", "Mean error, years", ...(interval ? [`True ages in the ${level} % interval`] : [])];
  head.append(...titles.map((title) => make("th", { scope: "col", textContent: title })));
  const rows = tests.map(({ name, mae, coverage }) => {
    const row = make("tr");
    row.append(make("th", { scope: "row", textContent: name }), make("td", { textContent: mae }));
    if (interval) row.append(make("td", { textContent: coverage || "not measured" }));
    return row;
  });
  const [header, body] = [make("thead"), make("tbody")];
  header.append(head);
  body.append(...rows);
  const caption = make("caption", { textContent: "Measured, with 95 % confidence intervals" });
  element("tests").replaceChildren(caption, header, body);
  const facts = { "Training data": model.training_data, License: model.licence, "Intended use": model.intended_use };
  const file = `${model.file}, SHA-256 ${model.sha256}`;
  for (const [name, text] of Object.entries({ ...facts, File: file })) {
    element("card").append(make("dt", { textContent: name }), make("dd", { textContent: text }));
  }
  element("versions").textContent = page.software;
}

function make(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

function report(text, isProblem = false) {
  element("status").textContent = text;
  element("status").classList.toggle("problem", isProblem);
}

// Let the browser draw the status before a computation occupies it.
function nextFrame() {
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
}
