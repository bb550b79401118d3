"use strict";
// All content comes from #data and is inserted as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const state = { sort: null, down: false };
data.systems.forEach((system, place) => { system.place_in_data = place; system.train = system.train || "not here"; });

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const fixed = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1"));
const grouped = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));
function figure(numbers, { percent = false, sign = false, mark = "" } = {}) {
  const box = document.createDocumentFragment();
  if (!numbers || numbers[0] === null) { box.append("–"); return box; }
  const show = (value) => (sign && value > 0 ? "+" : "") + fixed(percent ? value * 100 : value, percent ? 1 : 2);
  box.append(show(numbers[0]) + (percent ? " %" : "") + mark);
  if (numbers[1] !== null && numbers[2] !== null)
    box.append(" ", el("span", { class: "interval" }, `[${show(numbers[1])}, ${show(numbers[2])}]`));
  return box;
}
// Text with its http(s) addresses as links; anything else, `javascript:` among it, stays text.
function linked(text) {
  const box = document.createDocumentFragment();
  let end = 0;
  for (const match of text.matchAll(/https?:\/\/[^\s<>"'`|]+[^\s<>"'`|.,;:)\]]/g)) {
    let address = null;
    try { address = new URL(match[0]); } catch { continue; }
    if (address.protocol !== "https:" && address.protocol !== "http:") continue;
    box.append(text.slice(end, match.index), el("a", { href: address.href, rel: "noopener noreferrer" }, match[0]));
    end = match.index + match[0].length;
  }
  box.append(text.slice(end));
  return box;
}
const address = (system) => `#run=${encodeURIComponent(system.runs[0].id)}`;

function columns() {
  const on = $("test").value;
  const of = (system) => system.tests[on];
  return [
    { name: "System", text: true, value: (s) => s.name, cell: (s) => el("a", { href: address(s) }, s.name), head: true },
    { name: "Trained on", text: true, value: (s) => s.train, cell: (s) => s.train },
    ...data.tests.map((test) => ({
      name: `MAE on ${test}`, value: (s) => s.tests[test]?.mae[0] ?? null,
      cell: (s) => (s.tests[test] ? measured(s.tests[test]) : "–"),
    })),
    { name: `Rank (${on})`, value: (s) => { const r = rankOn(s, on); return r && r[0] * 1e6 + r[2] + r[3] / 1e3; }, cell: (s) => ranked(s, on) },
    { name: "Seeds", value: (s) => s.seeds, cell: (s) => String(s.seeds) },
    { name: `Worst group (${on})`, value: (s) => of(s)?.worst?.[1] ?? null, cell: (s) => named(of(s)?.worst) },
    { name: `Gap (${on})`, value: (s) => of(s)?.gap?.[1] ?? null, cell: (s) => named(of(s)?.gap, of(s)?.gapShown ? " ✓" : "") },
    ...(data.systems.some((s) => Object.keys(s.stress).length) ? [{ name: `relative error under corruptions (${on})`, value: (s) => s.stress[on]?.[0] ?? null,
      cell: (s) => (s.stress[on] ? named([`${s.stress[on][3]} corruptions, ${s.stress[on][4]} strengths`, ...s.stress[on].slice(0, 3)]) : "–") }] : []),
    { name: "Failure to process", value: (s) => (s.read ? s.lost / s.read : null), cell: (s) => (s.read ? `${grouped(s.lost)} of ${grouped(s.read)}` : "–") },
    { name: "Parameters", value: (s) => s.parameters, cell: (s) => (s.parameters ? `${fixed(s.parameters / 1e6, 1)} M` : "–") },
    { name: "Images/s", value: (s) => s.speed, cell: (s) => grouped(s.speed) },
    { name: "Caveats", text: true, wrap: true, value: (s) => s.flags.length, cell: (s) => (s.flags.length ? el("span", { class: "flag" }, s.flags.join(", ")) : "–") },
  ];
}
function measured(test) {
  const box = figure(test.mae, { mark: test.mark });
  box.append(el("br"), el("span", { class: "interval" }, test.tested));
  return box;
}
function named(entry, end = "") {
  if (!entry) return "–";
  const box = figure(entry.slice(1));
  box.append(el("br"), el("span", { class: "interval" }, entry[0] + end));
  return box;
}
const rankOn = (system, test) => system.ranks.find((one) => one[1].length === 1 && one[1][0] === test) ?? null;
function ranked(system, test) {
  const found = rankOn(system, test);
  if (!found) return "–";
  const box = document.createDocumentFragment();
  box.append(found[2] === found[3] ? String(found[2]) : `${found[2]}-${found[3]}`, el("br"), el("span", { class: "interval" }, `in ranking ${found[0]}`));
  return box;
}
function chosen() {
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const train = $("train").value;
  return data.systems.filter((system) => {
    const text = [system.name, system.train, ...system.flags].join(" ").toLowerCase();
    return words.every((word) => text.includes(word)) && (!train || system.train === train)
      && !($("clean").checked && system.flags.some((flag) => data.unfit.includes(flag)));
  });
}
function sorted(systems, all) {
  const column = all.find((one) => one.name === state.sort) || all.find((one) => one.name.startsWith("MAE on")) || all[0];
  state.sort = column.name;
  const direction = state.down ? -1 : 1;
  return [...systems].sort((a, b) => {
    const [left, right] = [column.value(a), column.value(b)];
    if (left === null || right === null) return (left === null) - (right === null); // what is not known stands last
    return direction * (typeof left === "string" ? left.localeCompare(right) : left - right) || a.place_in_data - b.place_in_data;
  });
}
function drawTable(systems, all) {
  const head = el("tr", {}, ...all.map((column) => {
    const button = el("button", { type: "button" }, column.name);
    button.addEventListener("click", () => {
      state.down = state.sort === column.name && !state.down;
      state.sort = column.name;
      draw();
      [...$("table").querySelectorAll("thead button")].find((one) => one.textContent === column.name)?.focus();
    });
    const order = column.name === state.sort ? (state.down ? "descending" : "ascending") : "none";
    return el("th", { scope: "col", "aria-sort": order, class: column.text ? "text" : null }, button);
  }));
  const body = systems.map((system) => el("tr", {}, ...all.map((column) =>
    el(column.head ? "th" : "td", { scope: column.head ? "row" : null, class: [column.text && "text", column.wrap && "wrap"].filter(Boolean).join(" ") || null }, column.cell(system)))));
  $("table").replaceChildren(el("thead", {}, head), el("tbody", {}, ...body));
}
// From pale to deep blue; the words on it black or white, whichever stands out more (4.5 : 1 at least).
function shade(share) {
  const rgb = [[239, 246, 255], [8, 48, 107]].reduce((from, to) => from.map((value, place) => Math.round(value + share * (to[place] - value))));
  const [r, g, b] = rgb.map((value) => { const part = value / 255; return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; });
  const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return `background:rgb(${rgb.join(",")});color:${light > 0.179 ? "#000" : "#fff"}`;
}
function drawHeat(systems) {
  const most = 200;
  const floorRows = Object.entries(data.floors).filter(([train]) => systems.some((system) => system.train === train));
  const shown = systems.slice(0, most);
  const values = shown.flatMap((system) => Object.values(system.tests).map((test) => test.mae[0]))
    .concat(floorRows.flatMap(([, of]) => Object.values(of))).filter((value) => value !== null);
  const [low, high] = values.length ? [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))] : [0, 1];
  const cell = (value, end) => (value === null || value === undefined ? el("td", {}, "–")
    : el("td", { style: shade((value - low) / (high - low || 1)) }, fixed(value) + end));
  const row = (name, train, of) => el("tr", {}, el("th", { scope: "row", class: "text" }, name), el("td", { class: "text" }, train), ...of);
  const rows = [...shown].sort((a, b) => a.train.localeCompare(b.train)).map((system) => row(el("a", { href: address(system) }, system.name), system.train,
    data.tests.map((test) => cell(system.tests[test]?.mae[0], system.tests[test]?.mark ?? ""))));
  const floors = floorRows.map(([train, of]) => row("median age", train, data.tests.map((test) => cell(of[test], ""))));
  const head = ["System", "Trained on", ...data.tests].map((name, place) => el("th", { scope: "col", class: place < 2 ? "text" : null }, name));
  $("heat").replaceChildren(...(systems.length > most ? [el("caption", {}, `the first ${most} of ${systems.length}`)] : []),
    el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows, ...floors));
}
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]; // Okabe and Ito
function drawPlot(id, caption, points, [xName, yName], logarithmic) {
  const [width, height, left, right, top, bottom] = [560, 340, 64, 24, 14, 46];
  const box = $(id);
  const good = points.filter((point) => point.x !== null && point.y !== null && (!logarithmic || point.x > 0));
  if (!good.length) { box.replaceChildren(el("figcaption", {}, `${caption}: nothing to draw for this test set.`)); return; }
  const scale = (values, from, to, log) => {
    let [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
    if (log) [low, high] = [low / 1.2, high * 1.2]; else { const room = (high - low || Math.abs(high) || 1) * 0.12; [low, high] = [low - room, high + room]; }
    const f = log ? Math.log : (value) => value;
    return { low, high, at: (value) => from + ((f(value) - f(low)) / (f(high) - f(low))) * (to - from) };
  };
  const x = scale(good.map((point) => point.x), left, width - right, logarithmic);
  const y = scale(good.map((point) => point.y), height - bottom, top, false);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${caption}: ${good.length} systems; the table above has the numbers` });
  const digits = (axis) => (axis.high - axis.low < 2 ? 2 : 1);
  for (let step = 0; step <= 4; step++) {
    const share = step / 4;
    const xv = logarithmic ? x.low * (x.high / x.low) ** share : x.low + share * (x.high - x.low), yv = y.low + share * (y.high - y.low);
    drawing.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y.at(yv), y2: y.at(yv) }),
      svg("text", { x: left - 6, y: y.at(yv) + 4, "text-anchor": "end" }, fixed(yv, digits(y))),
      svg("text", { x: x.at(xv), y: height - bottom + 19, "text-anchor": "middle" }, logarithmic ? grouped(xv) : fixed(xv, digits(x))));
  }
  drawing.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, xName),
    svg("text", { transform: `translate(14 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yName));
  const trains = [...new Set(good.map((point) => point.system.train))];
  const taken = good.map((point) => [x.at(point.x) - 5, y.at(point.y) - 5, 10, 10]);
  for (const point of good) {
    const colour = COLOURS[trains.indexOf(point.system.train) % COLOURS.length];
    const [px, py] = [x.at(point.x), y.at(point.y)];
    const link = svg("a", { href: address(point.system), tabindex: "-1" }, svg("circle", { cx: px, cy: py, r: 5, fill: colour, stroke: "currentColor" },
      svg("title", {}, `${point.system.name} (${point.system.train}): ${xName} ${fixed(point.x)}, ${yName} ${fixed(point.y)}`)));
    drawing.append(link);
    const label = point.system.label, wide = label.length * (innerWidth < 640 ? 9 : 7);
    const place = px + 8 + wide < width - right ? px + 8 : px - 8 - wide; // a label that finds no room is left out
    const area = [place, py - 8, wide, 14];
    if (good.length <= 40 && !taken.some(([bx, by, bw, bh], index) => good[index] !== point && area[0] < bx + bw && bx < area[0] + area[2] && area[1] < by + bh && by < area[1] + area[3])) {
      drawing.append(svg("text", { x: place, y: py + 4 }, label));
      taken.push(area);
    }
  }
  const legend = trains.slice(0, COLOURS.length).flatMap((train, place) => [el("span", { style: `color:${COLOURS[place]}`, "aria-hidden": "true" }, " ●"), ` trained on ${train}`]);
  box.replaceChildren(drawing, el("figcaption", {}, `${caption}. `, ...legend));
}
function drawPlots(systems) {
  const on = $("test").value;
  const points = (x, y) => systems.filter((system) => system.tests[on]).map((system) => ({ system, x: x(system), y: y(system) }));
  drawPlot("fairness", `MAE and the largest age-standardized gap on ${on}`,
    points((s) => s.tests[on].mae[0], (s) => s.tests[on].gap?.[1] ?? null), ["MAE (years)", "gap (years)"], false);
  drawPlot("speed", `MAE and speed on ${on}`, points((s) => s.speed, (s) => s.tests[on].mae[0]), ["images/s", "MAE (years)"], true);
}
function draw() {
  const all = columns();
  const systems = sorted(chosen(), all);
  $("count").textContent = `${systems.length} of ${data.systems.length} systems`;
  drawTable(systems, all);
  drawHeat(systems);
  drawPlots(systems);
}
function table(names, rows, texts = 1) {
  const kind = (place) => (place < texts ? "text" : null);
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": names.filter(Boolean).join(", ") }, el("table", {},
    el("thead", {}, el("tr", {}, ...names.map((name, place) => el("th", { scope: "col", class: kind(place) }, name)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, place) => el(place ? "td" : "th", { class: kind(place), scope: place ? null : "row" }, cell)))))));
}
// Cells of true age and estimate; the area of a dot grows with the logarithm of its number of images.
function scatter(test, cells, seeds) {
  const [size, left, top, bottom] = [320, 44, 10, 42], years = head.cellYears, side = size - left - top;
  const most = cells.reduce((high, [age, estimate]) => Math.max(high, age, estimate), 0), room = (most + 1) * years;
  const x = (age) => left + (age / room) * side, y = (age) => size - bottom + top - (age / room) * side;
  const n = cells.reduce((sum, [, , count]) => sum + count, 0), full = Math.log1p(cells.reduce((high, [, , count]) => Math.max(high, count), 1));
  const drawing = svg("svg", { viewBox: `0 0 ${size} ${size + top}`, role: "img", "aria-label": `Estimate against true age on ${test}, ${grouped(n)} images; the tables below have the errors by age` });
  for (let age = 0; age <= room; age += 20)
    drawing.append(svg("line", { class: "grid", x1: left, x2: left + side, y1: y(age), y2: y(age) }), svg("line", { class: "grid", x1: x(age), x2: x(age), y1: y(0), y2: y(room) }),
      svg("text", { x: left - 6, y: y(age) + 4, "text-anchor": "end" }, String(age)), svg("text", { x: x(age), y: y(0) + 17, "text-anchor": "middle" }, String(age)));
  drawing.append(svg("line", { class: "axis", x1: x(0), y1: y(0), x2: x(room), y2: y(room) }));
  const largest = (side / (most + 1)) * 0.5;
  const dots = {}; // width of the dots -> their places, each a line without length and with round ends
  for (const [age, estimate, count] of cells) {
    const width = Math.max(2 * largest * Math.sqrt(Math.log1p(count) / full), 1).toFixed(1);
    dots[width] = `${dots[width] ?? ""}M${x((age + 0.5) * years).toFixed(1)} ${y((estimate + 0.5) * years).toFixed(1)}h0`;
  }
  for (const [width, places] of Object.entries(dots)) drawing.append(svg("path", { class: "dot", "stroke-width": width, d: places }));
  drawing.append(svg("text", { x: left + side / 2, y: size + top - 6, "text-anchor": "middle" }, "true age (years)"),
    svg("text", { transform: `translate(12 ${top + side / 2}) rotate(-90)`, "text-anchor": "middle" }, "estimate (years)"));
  return el("figure", {}, drawing, el("figcaption", {}, `${test}, ${grouped(n)} images${seeds > 1 ? " of the first seed" : ""} in cells of ${years} years; larger dots: more images. On the line the estimate is the true age.`));
}
// Rates of the gates of a legal age, where they were computed: those of the systems in the first table.
function gatesOf(system) {
  const row = head.rows.find((one) => data.systems[one.place] === system), legal = head.gate[0];
  const tests = Object.entries(row?.gates ?? {}).filter(([, of]) => of[legal]);
  if (!tests.length) return [];
  const body = tests.flatMap(([test, of]) => {
    const { first, minors, groups: [[, , nMinors, nAdults, passing, refused]] } = of[legal];
    return [legal, 21, head.gate[1], 30, 35].filter((age) => age >= first && passing[age - first])
      .map((age, place) => [place ? "" : test + row.cells[test].mark, String(age), figure(passing[age - first], { percent: true }), figure(refused[age - first], { percent: true }),
        place ? "" : `${grouped(nMinors)} aged ${minors[0]}-${minors[1]}; ${grouped(nAdults)} aged ${legal} or older`]);
  });
  return [el("h3", {}, `Age gate at ${legal}`), table(["Test set", "Passes from an estimate of", "Minors that pass", "Adults that are refused", "Images"], body)];
}
function drawRun(system) {
  const title = el("h2", { tabindex: "-1" }, `${system.name}, ${system.train === "not here" ? "not trained here" : `trained on ${system.train}`}`);
  const parts = [el("p", {}, el("a", { href: "#" }, "← all systems")), title];
  if (system.flags.length) parts.push(el("p", { class: "flag" }, `Caveats: ${system.flags.join(", ")}.`));
  if (system.about) parts.push(el("p", {}, linked(system.about)));
  if (system.citation) parts.push(el("p", {}, linked(system.citation)));
  const ranges = Object.values(system.tests).some((test) => test.range_mae[0] !== null); // labels that are ranges of ages
  parts.push(el("h3", {}, "Metrics"), table(["Test set", "Images", ...(ranges ? ["Distance to the range (years)"] : []), "MAE (years)", "RMSE (years)", "Bias (years)", "CS@5"],
    Object.entries(system.tests).map(([name, test]) => [name + test.mark, test.tested, ...(ranges ? [test.range_mae[0] === null ? "–" : figure(test.range_mae)] : []),
      figure(test.mae), figure(test.rmse), figure(test.bias, { sign: true }), figure(test.cs5, { percent: true })])));
  if (ranges) parts.push(el("p", { class: "note" }, "Where labels are ranges of ages, MAE, RMSE, bias and CS@5 are of the middles of the ranges."));
  const scatters = Object.entries(system.scatter);
  if (scatters.length) parts.push(el("h3", {}, "Estimates against true ages"), el("div", { class: "plots scatters" }, ...scatters.map(([test, cells]) => scatter(test, cells, system.seeds))));
  parts.push(...gatesOf(system));
  if (Object.keys(system.shifts).length)
    parts.push(el("h3", {}, `Why other datasets are harder than ${system.train}`), table(["Test set", "Difference (years)", "Mix of ages", "Other faces of the same ages", "Ages outside", "Mended by a linear map on 100 labeled images"],
      Object.entries(system.shifts).map(([name, of]) => [name, ...of.map((numbers) => figure(numbers, { sign: true }))])));
  parts.push(el("h3", {}, "Runs"), table(["Record", "Seed", ...Object.keys(system.tests).map((test) => `MAE on ${test}`)],
    system.runs.map((run) => [run.id, String(run.seed ?? "–"), ...Object.keys(system.tests).map((test) => figure(run.mae[test]))])));
  for (const [name, test] of Object.entries(system.tests))
    for (const [grouping, groups] of Object.entries(test.groups))
      parts.push(el("h3", {}, `${name}, by ${grouping.replace("_", " ")}`), table([grouping.replace("_", " "), "n", "MAE (years)", "Bias (years)"],
        groups.map(([group, n, ranked, mae, bias]) => [group + (ranked ? "" : " (n < 30)"), grouped(n), figure(mae), figure(bias, { sign: true })])));
  const attributes = Object.entries(system.tests).flatMap(([name, test]) => test.attributes.map((found) => [name, ...found]));
  if (attributes.length) parts.push(el("h3", {}, "Other predicted attributes"), table(["Test set", "Target", "Labeled images", "Accuracy", "Right, by class", "Most frequent class"],
    attributes.map(([name, target, n, accuracy, recalls, majority]) => [name, target, grouped(n), figure(accuracy, { percent: true }),
      el("span", {}, ...recalls.flatMap(([kind, recall], index) => [`${index ? "; " : ""}${kind} `, figure(recall, { percent: true })])), figure([majority, null, null], { percent: true })])));
  parts.push(el("h3", {}, "Provenance"), el("dl", {}, ...system.facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, linked(value))])));
  parts.push(el("h3", {}, "Reproducing these runs"), el("p", {}, "The command needs the same datasets. It lists the differences from the record first, and reports at the end whether each value is identical, inside the interval or outside."),
    el("pre", { tabindex: "0" }, system.runs.map((run) => `agebench reproduce reports/results/${run.id}.json`).join("\n")));
  parts.push(el("details", {}, el("summary", {}, "Config of the first run"), el("pre", { tabindex: "0" }, system.config)));
  $("run").replaceChildren(...parts);
  return title;
}
function route(focus = true) {
  let id = null;
  try { id = decodeURIComponent(location.hash.match(/^#run=(.+)$/)?.[1] ?? ""); } catch { id = ""; }
  const system = id && data.systems.find((one) => one.runs.some((run) => run.id === id));
  $("run").hidden = !system;
  $("board").hidden = Boolean(system);
  document.title = system ? `${system.name} – agebench leaderboard` : "agebench leaderboard";
  if (system) { const title = drawRun(system); window.scrollTo(0, 0); if (focus) title.focus({ preventScroll: true }); }
}
const option = (value, name = value) => el("option", { value }, name);
const head = data.headline;
const LEGAL_AGES = [...new Set(head.rows.flatMap((row) => Object.values(row.gates).flatMap((of) => Object.keys(of).map(Number))))].sort((a, b) => a - b);
function rows(id, names, body, texts = 1) {
  const kind = (place) => (place < texts ? "text" : null);
  $(id).replaceChildren(el("thead", {}, el("tr", {}, ...names.map((name, place) => el("th", { scope: "col", class: kind(place) }, name)))), el("tbody", {}, ...body));
}
const systemLink = (row, text = row.name) => el("a", { href: address(data.systems[row.place]) }, text);
const small = (text) => [el("br"), el("span", { class: "interval" }, text)];
function bar(rate) {
  const box = el("span", { class: "bar", "aria-hidden": "true" });
  if (rate && rate[0] !== null) box.append(el("span", { style: `width:${(rate[0] * 100).toFixed(1)}%` }));
  return box;
}
function drawAnswer() {
  const gateTest = head.gateTests.slice(0, 1);
  const names = ["System", ...head.tests.map((test) => `${test}, ${head.ranges.includes(test) ? "distance to the range" : "MAE"}`),
    ...gateTest.map((test) => `Minors of 13-17 that pass at T = ${head.gate[1]}, ${test}`), ...gateTest.map((test) => `Adults refused at T = ${head.gate[1]}, ${test}`), "Widest gap between groups at equal ages (years)", "ms a face", "License"];
  const wide = names.length;
  let kind = null;
  const body = [];
  for (const row of head.rows) {
    if (row.kind !== kind) body.push(el("tr", { class: "kind" }, el("th", { scope: "rowgroup", colspan: String(wide), class: "text" }, el("span", {}, row.kind))));
    kind = row.kind;
    const cell = (test) => {
      const of = row.cells[test];
      if (!of) return el("td", {}, "–");
      return el("td", { class: of.mark.includes("§") ? "apart" : null }, figure(of.error, { mark: of.mark }), ...small(of.tested), ...(of.rank ? small(`rank ${of.rank}`) : []));
    };
    const minors = (test) => {
      const of = row.cells[test];
      return el("td", {}, ...(of && of.n ? [figure(of.minors, { percent: true, mark: of.mark }), ...small(`${grouped(of.n)} images`)] : ["–"]));
    };
    const refused = (test) => {
      const of = row.cells[test];
      return el("td", {}, of && of.n ? figure(of.refused, { percent: true, mark: of.mark }) : "–");
    };
    const speed = data.systems[row.place].speed;
    body.push(el("tr", {}, el("th", { scope: "row", class: "text" }, systemLink(row)), ...head.tests.map(cell), ...gateTest.map(minors), ...gateTest.map(refused), el("td", { class: "pair" }, ...(row.gap ? [figure(row.gap.slice(1)), ...small(row.gap[0])] : ["–"])),
      el("td", {}, speed ? fixed(1000 / speed, 1) : "–"), el("td", { class: "text wrap" }, row.licence)));
  }
  rows("answer", names, body);
}
function drawGates() {
  const legal = LEGAL_AGES[Number($("legal").value)];
  const slider = $("challenge");
  slider.min = legal;
  const challenge = Number(slider.value);
  $("legal-value").textContent = legal;
  $("challenge-value").textContent = challenge;
  slider.setAttribute("aria-valuetext", `${challenge} years`);
  $("legal").setAttribute("aria-valuetext", `${legal} years`);
  const test = $("gate-test").value, grouping = $("gate-groups").value;
  const all = head.rows.map((row) => ({ row, of: row.gates[test]?.[legal] })).filter(({ of }) => of);
  const known = new Set(all.flatMap(({ of }) => of.groups.map(([name]) => name)));
  const body = all.flatMap(({ row, of }) => of.groups.filter(([name]) => name === (known.has(grouping) ? grouping : "all")).map(([, name, minors, adults, passing, refused], place) => {
    const at = challenge - of.first, mark = row.cells[test].mark;
    const share = (rates, n) => el("td", {}, figure(n ? rates[at] : null, { percent: true }), el("br"), bar(n ? rates[at] : null), ...small(n === 0 ? "no images" : `${grouped(n)} images`));
    return el("tr", {}, el("th", { scope: "row", class: "text" }, place ? "" : systemLink(row, row.name + mark)), el("td", { class: "text" }, name), share(passing, minors), share(refused, adults));
  }));
  const byGroup = known.has(grouping) && grouping !== "all";
  if (!byGroup) for (const row of body) row.children[1].remove();
  const ages = all.length ? `${all[0].of.minors[0]}-${all[0].of.minors[1]}` : "";
  rows("gates", ["System", ...(byGroup ? ["Group"] : []), `Minors of ${ages} that pass`, `Adults from ${legal} on that are refused`], body, byGroup ? 2 : 1);
  $("gate-status").textContent = all.length ? `Legal age ${legal}, T = ${challenge}, ${test}: ${all.length} systems.` : `No system was measured on ${test} at the legal age ${legal}.`;
}
function chooseGroups() {
  const test = $("gate-test").value, old = $("gate-groups").value;
  const names = [...new Set(head.rows.flatMap((row) => Object.values(row.gates[test] ?? {}).flatMap((of) => of.groups.map(([name]) => name))))];
  $("gate-groups").replaceChildren(...names.map((name) => option(name, name === "all" ? "all images" : `by ${name}`)));
  if (names.includes(old)) $("gate-groups").value = old;
}
function drawStages() {
  const test = $("stage-test").value;
  const all = head.rows.filter((row) => row.stages[test]);
  const stages = [["0-12", "Children, 0-12"], ["13-17", "13-17"], ["18-64", "Adults, 18-64"], ["65+", "Old people, 65+"]];
  const cell = (of) => (of ? el("td", {}, figure(of[0] < 10 ? null : of.slice(1)), ...small(`${grouped(of[0])} images`)) : el("td", {}, "–"));
  rows("stages", ["System", ...stages.map(([, name]) => name)], all.map((row) => el("tr", {}, el("th", { scope: "row", class: "text" }, systemLink(row, row.name + row.cells[test].mark)), ...stages.map(([key]) => cell(row.stages[test][key])))));
}
function startHeadline() {
  const [, verdict, reason] = head.trust.match(/^(.*?”\s[^.:]*[.:])\s*(.*)$/) ?? [null, head.trust, ""];
  $("trust").append(el("strong", {}, verdict), reason ? ` ${reason}` : "");
  $("answer-note").textContent = `${head.note} ms a face: prediction alone, on the machine of the first run.`;
  drawAnswer();
  const measured = head.gateTests.length > 0;
  for (const id of ["gate", "gate-title", "stages-title", "gate-test", "stage-test"]) $(id).closest("form, h2, label").hidden = !measured;
  if (!measured) { $("gate-status").textContent = "No rates of age gates were measured."; return; }
  $("gate-test").append(...head.gateTests.map((test) => option(test)));
  $("stage-test").append(...head.gateTests.map((test) => option(test)));
  $("legal").max = LEGAL_AGES.length - 1;
  $("legal").value = Math.max(LEGAL_AGES.indexOf(head.gate[0]), 0);
  $("challenge").min = LEGAL_AGES[Number($("legal").value)];
  $("challenge").value = head.gate[1];
  chooseGroups();
  drawGates();
  drawStages();
  $("gate").addEventListener("input", (event) => { if (event.target.id === "gate-test") chooseGroups(); drawGates(); });
  $("gate").addEventListener("submit", (event) => event.preventDefault());
  $("stage-test").addEventListener("input", drawStages);
}
$("train").append(option("", "any dataset"), ...[...new Set(data.systems.map((system) => system.train))].map((name) => option(name)));
$("test").append(...data.tests.map((name) => option(name)));
startHeadline();
$("legend").textContent = data.legend;
$("ranks").append(...data.ranks.map((said) => el("p", { class: "note" }, said)));
$("made").textContent = `${data.systems.reduce((sum, system) => sum + system.runs.length, 0)} records, agebench ${data.agebench}. This page loads nothing from the network and sends nothing.`;
$("published").append(
  el("thead", {}, el("tr", {}, ...["System", "Trained on", "Tested on", "Metric", "Value", "Protocol", "Source"].map((name) => el("th", { scope: "col", class: name === "Value" ? null : "text" }, name)))),
  el("tbody", {}, ...data.published.map((row) => el("tr", {}, ...[`${row.system} (published)`, row.train, row.test, row.metric, String(row.value), [row.protocol, row.note].filter(Boolean).join("; "), linked(row.citation)]
    .map((cell, place) => el("td", { class: place === 4 ? null : place > 4 ? "text wrap" : "text" }, cell))))));
$("filters").addEventListener("input", draw);
$("filters").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", () => route());
draw();
route(false);
