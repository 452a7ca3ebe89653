// The studio's page. The server holds every decision; the page only shows, paints, and sends.
import { Board } from "./board.js";

const $ = (id) => document.getElementById(id);
const GRID = 40;
const FIRST_LAYERS = [["mask", "mask"]];
const state = { project: null, current: null, filter: "all", busy: 0, next: [], grid: 0, left: new Set() };
const board = new Board($("canvas"), $("frame"));

async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    const detail = body.error ?? (Array.isArray(body.detail) ? body.detail.map((d) => d.msg).join("; ") : body.detail);
    throw new Error(detail ?? `${answer.status} ${answer.statusText}`);
  }
  return answer;
}
const json = async (path, options) => (await ask(path, options)).json();
const address = (name, part = "") => `/api/pictures/${encodeURIComponent(name)}${part}`;

let clock;
function say(text) {
  $("message").textContent = text;
  $("message").classList.add("shown");
  clearTimeout(clock);
  clock = setTimeout(() => $("message").classList.remove("shown"), 6000);
}
// Errors become a message; while something is under way the page says so, to people and to screen readers.
const guarded = (work) => async (...args) => {
  document.body.setAttribute("aria-busy", String(++state.busy > 0));
  try { return await work(...args); } catch (error) { say(error.message); } finally {
    document.body.setAttribute("aria-busy", String(--state.busy > 0));
  }
};

// The list -----------------------------------------------------------------------------------------------------------

function shown() {
  if (state.filter === "next") return state.next.map((name) => state.project.pictures.find((p) => p.name === name)).filter(Boolean);
  return state.project.pictures.filter((p) => state.filter === "all" || p.status === state.filter);
}

function drawList() {
  const list = $("pictures");
  list.replaceChildren(...shown().map((picture) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.name = picture.name;
    button.setAttribute("aria-current", String(picture.name === state.current?.name));
    const image = document.createElement("img");
    image.loading = "lazy";
    image.alt = "";
    image.src = thumbnail(picture, 176);
    const words = document.createElement("span");
    words.append(small(picture.file), small(picture.tags.join(", ") || "no tag"));
    if (picture.status === "open") words.append(...doubt(picture));
    else words.append(Object.assign(small(picture.status), { className: picture.status }));
    button.append(image, words);
    button.addEventListener("click", guarded(() => open(picture.name)));
    item.append(button);
    return item;
  }));
  const count = (status) => state.project.pictures.filter((p) => p.status === status).length;
  drawGrid();
  $("counts").textContent = `${state.project.pictures.length} pictures, ${count("accepted")} accepted, ${count("rejected")} rejected`;
}
const small = (text) => Object.assign(document.createElement("small"), { textContent: text });
// The address changes with what the picture shows, so that the browser may keep it.
const thumbnail = (p, side) => address(p.name, `/thumbnail?side=${side}&v=${p.version ?? 0}-${p.status}-${p.tags.length}`);

function doubt(picture) {
  if (picture.doubt === null) return [small("not searched yet")];
  const bar = Object.assign(document.createElement("meter"), { min: 0, max: 1, value: picture.doubt, title: `doubt ${picture.doubt.toFixed(2)}` });
  bar.setAttribute("aria-label", "doubt");
  return [small(`doubt ${picture.doubt.toFixed(2)}`), bar];
}

// The grid -----------------------------------------------------------------------------------------------------------

const page = () => shown().filter((p) => p.status === "open").slice(state.grid, state.grid + GRID);

function drawGrid() {
  if ($("grid").hidden) return;
  const pictures = page();
  $("cells").replaceChildren(...pictures.map((picture) => {
    const item = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.dataset.name = picture.name;
    button.setAttribute("aria-pressed", String(!state.left.has(picture.name)));
    const image = Object.assign(document.createElement("img"), { alt: "", loading: "lazy", src: thumbnail(picture, 320) });
    button.append(image, small(picture.file), small(picture.tags.join(", ") || "no tag"));
    button.addEventListener("click", () => {
      state.left[state.left.has(picture.name) ? "delete" : "add"](picture.name);
      drawGrid();
    });
    button.addEventListener("dblclick", guarded(async () => { showGrid(false); await open(picture.name); }));
    item.append(button);
    return item;
  }));
  const open_ = shown().filter((p) => p.status === "open").length;
  const chosen = pictures.filter((p) => !state.left.has(p.name)).length;
  $("grid-count").textContent = open_ ? `${chosen} of ${pictures.length} chosen; ${open_} open. A click leaves a picture out, a double click opens it.` : "nothing is open here";
  $("accept-grid").disabled = chosen === 0;
  $("earlier-grid").disabled = state.grid === 0;
  $("later-grid").disabled = state.grid + GRID >= open_;
}

function showGrid(wanted) {
  $("grid").hidden = !wanted;
  $("stage").hidden = wanted;
  $("show-grid").setAttribute("aria-expanded", String(wanted));
  drawGrid();
  board.fit();
}

async function acceptGrid() {
  const names = page().filter((p) => !state.left.has(p.name)).map((p) => p.name);
  const headers = { "content-type": "application/json" };
  const found = await json("/api/accept", { method: "POST", headers, body: JSON.stringify({ names }) });
  for (const summary of found.accepted) merge(summary);
  drawList();
  drawTools();
  const left = found.left.length ? `; not searched yet: ${found.left.join(", ")}` : "";
  say(`${found.accepted.length} accepted${left}`);
}

async function filterBy(value) {
  state.filter = value;
  state.grid = 0;
  if (value === "next") state.next = await json("/api/next?count=20");
  drawList();
}

function merge(summary) {
  const index = state.project.pictures.findIndex((p) => p.name === summary.name);
  const version = (state.project.pictures[index]?.version ?? 0) + 1;
  if (index < 0) state.project.pictures.unshift(summary);
  else state.project.pictures[index] = { ...state.project.pictures[index], ...summary, version };
  if (state.current?.name === summary.name) state.current = { ...state.current, ...summary };
}

function update(summary) {
  merge(summary);
  drawList();
  drawTools();
}

async function step(by, from = state.current?.name, list = shown()) {
  const index = list.findIndex((p) => p.name === from);
  const next = list[Math.min(list.length - 1, Math.max(0, index + by))];
  if (next && next.name !== state.current?.name) await open(next.name);
}

// One picture --------------------------------------------------------------------------------------------------------

async function open(name) {
  const picture = await json(address(name));
  const [image, labels] = await Promise.all([board.loadImage(address(name, "/image")), readLabels(name)]);
  state.current = picture;
  const first = state.project.classes.indexOf(picture.tags[0]);
  if (first >= 0) paintWith(first + 1);
  board.show(image, labels, picture.width, picture.height);
  location.hash = encodeURIComponent(name);
  $("threshold").value = Math.round(100 * state.project.threshold);
  drawList();
  drawTools();
  await showLayer();
  bringIntoList();
}

// Only the list is scrolled; on a phone the page stays where it is.
function bringIntoList() {
  const chosen = document.querySelector('#pictures [aria-current="true"]');
  if (!chosen) return;
  const box = chosen.getBoundingClientRect();
  for (const list of [document.querySelector("nav"), $("pictures")]) {
    const around = list.getBoundingClientRect();
    if (list.scrollHeight > list.clientHeight + 1) list.scrollTop += Math.min(0, box.top - around.top) + Math.max(0, box.bottom - around.bottom);
    if (list.scrollWidth > list.clientWidth + 1) list.scrollLeft += Math.min(0, box.left - around.left) + Math.max(0, box.right - around.right);
  }
}

async function readLabels(name, query = "") {
  return new Uint8Array(await (await ask(address(name, `/labels${query}`))).arrayBuffer());
}

function drawTools() {
  const picture = state.current;
  const none = picture === null;
  for (const id of ["accept", "reject", "refine", "threshold", ...TOOLS]) $(id).disabled = none;
  $("empty").hidden = !none;
  $("undo").disabled = none || !picture.undo;
  if (none) return;
  $("name").textContent = `${picture.file} (${picture.status})`;
  for (const box of document.querySelectorAll("#tags input")) box.checked = picture.tags.includes(box.value);
  ownTagsFirst(picture);
  const chosen = $("tag-of-map").value;
  options($("tag-of-map"), picture.tags.map((t) => [t, t]));
  if (picture.tags.includes(chosen)) $("tag-of-map").value = chosen;
  $("opacity-value").textContent = `${$("opacity").value} %`;
  $("threshold-value").textContent = (Number($("threshold").value) / 100).toFixed(2);
  $("size-value").textContent = `${$("size").value} px`;
  $("reach-value").textContent = `${$("reach").value} %`;
  $("zoom-value").textContent = `${$("zoom").value} %`;
}

function options(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
}

function paintWith(id) {
  $("paint-class").value = String(id);
  board.paintClass = id;
}

const showLayer = guarded(async () => {
  const kind = $("layer").value;
  const isMap = kind !== "mask";
  for (const id of ["tag-of-map", "tag-label"]) $(id).hidden = !isMap;
  const tag = $("tag-of-map").value;
  if (!isMap || !tag) return board.setMap(null);
  const query = new URLSearchParams({ kind, tag });
  board.setMap(await board.loadImage(address(state.current.name, `/map?${query}`)));
});

async function decide(status, onward = true) {
  if (!state.current) return;
  const { name } = state.current;
  const list = shown();
  const body = status === "accepted" || board.changed ? board.labels : null;
  update(await json(address(name, `/decision?status=${status}`), { method: "PUT", body }));
  board.changed = false;
  say(`${state.project.pictures.find((p) => p.name === name)?.file ?? name}: ${status}`);
  if (onward) await step(1, name, list);
}

async function undo() {
  const { name } = state.current;
  update(await json(address(name, "/undo"), { method: "POST" }));
  await open(name);
}

async function retag() {
  const tags = [...document.querySelectorAll("#tags input:checked")].map((box) => box.value);
  const { name } = state.current;
  const headers = { "content-type": "application/json" };
  update(await json(address(name, "/tags"), { method: "PUT", headers, body: JSON.stringify({ tags }) }));
  await open(name);
}

async function redraw(refine, kept) {
  const { name } = state.current;
  const query = new URLSearchParams({ threshold: Number($("threshold").value) / 100, refine });
  const labels = await readLabels(name, `?${query}`);
  if (state.current?.name !== name) return; // another picture was opened meanwhile
  board.replace(labels);
  if (kept) await keep();
  drawTools();
}

// What is painted or drawn is kept at once: it goes to the server as a mask of the still undecided picture.
async function keep() {
  const { name, status } = state.current;
  update(await json(address(name, `/decision?status=${status}`), { method: "PUT", body: board.labels }));
  board.changed = false;
}

board.onStroke = guarded(keep);

// A click adds or removes the connected pixels around it that look alike.
board.onClick = guarded(async (x, y, take) => {
  const { name } = state.current;
  const tag = state.project.classes[board.paintClass - 1];
  const query = new URLSearchParams({ x, y, tag, reach: Number($("reach").value) / 100 });
  const region = new Uint8Array(await (await ask(address(name, `/region?${query}`))).arrayBuffer());
  if (state.current?.name !== name) return;
  board.fill(region, take ? 0 : board.paintClass);
  await keep();
});
const TOOLS = ["brush", "eraser", "add-region", "take-region"];

function tool(name) {
  board.tool = board.tool === name ? null : name;
  for (const id of TOOLS) $(id).setAttribute("aria-pressed", String(board.tool === id));
  $("canvas").classList.toggle("painting", board.tool !== null);
}

// Uploads, export, training ------------------------------------------------------------------------------------------

async function add(files) {
  let last = null;
  for (const file of files) {
    say(`adding ${file.name}`);
    try {
      const query = new URLSearchParams({ name: file.name });
      last = await json(`/api/upload?${query}`, { method: "PUT", body: file });
      update(last);
    } catch (error) { say(`${file.name}: ${error.message}`); }
  }
  if (last) await open(last.name);
}

async function exportMasks() {
  const formats = [...document.querySelectorAll("#formats input:checked")].map((box) => box.value);
  const body = JSON.stringify({ formats, accepted_only: $("accepted-only").checked });
  const found = await json("/api/export", { method: "POST", headers: { "content-type": "application/json" }, body });
  const link = Object.assign(document.createElement("a"), { href: found.archive, textContent: "download", download: "" });
  $("exported").replaceChildren(`${found.pictures} pictures in ${found.folder}, `, link);
}

async function drawProgress() {
  if ($("progress").hidden) return;
  const stages = await json("/api/progress");
  $("progress").replaceChildren(...Object.entries(stages).map(([name, log]) => {
    const figure = document.createElement("figure");
    const last = log.losses.at(-1);
    const caption = Object.assign(document.createElement("figcaption"), {
      textContent: `${name}: step ${log.steps.at(-1)}, loss ${last?.toFixed(3)}${log.done ? ", done" : ""}`,
    });
    const highest = Math.max(...log.losses, 1e-9);
    const points = log.losses.map((loss, i) => `${(300 * i) / Math.max(1, log.losses.length - 1)},${88 - (86 * loss) / highest}`);
    const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    drawing.setAttribute("viewBox", "0 0 300 90");
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", `loss of ${name}`);
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    line.setAttribute("points", points.join(" "));
    drawing.append(line);
    figure.append(caption, drawing);
    return figure;
  }));
  setTimeout(guarded(drawProgress), 2000);
}

function drawer(button, id) {
  button.addEventListener("click", () => {
    $(id).hidden = !$(id).hidden;
    button.setAttribute("aria-expanded", String(!$(id).hidden));
    board.fit();
    if (id === "progress") guarded(drawProgress)();
  });
}

// Start --------------------------------------------------------------------------------------------------------------

// Only when another picture is opened: boxes must not move under the pointer.
function ownTagsFirst(picture) {
  if ($("tags").dataset.of === picture.name) return;
  $("tags").dataset.of = picture.name;
  const place = (label) => state.project.classes.indexOf(label.querySelector("input").value);
  const own = (label) => (label.querySelector("input").checked ? 0 : 1);
  const labels = [...document.querySelectorAll("#tags label")];
  $("tags").append(...labels.sort((a, b) => own(a) - own(b) || place(a) - place(b)));
}

function checkbox(value, checked, colour) {
  const label = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", value, checked });
  const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
  if (colour) swatch.style.background = `rgb(${colour.join(",")})`;
  label.append(box, " ", ...(colour ? [swatch] : []), value);
  return label;
}

function listen() {
  $("filter").addEventListener("change", guarded(() => filterBy($("filter").value)));
  $("show-grid").addEventListener("click", () => showGrid($("grid").hidden));
  $("accept-grid").addEventListener("click", guarded(acceptGrid));
  $("earlier-grid").addEventListener("click", () => { state.grid = Math.max(0, state.grid - GRID); drawGrid(); });
  $("later-grid").addEventListener("click", () => { state.grid += GRID; drawGrid(); });
  $("outlines").addEventListener("change", () => board.setOutlines($("outlines").checked));
  $("reach").addEventListener("input", drawTools);
  $("accept").addEventListener("click", guarded(() => decide("accepted")));
  $("reject").addEventListener("click", guarded(() => decide("rejected")));
  $("undo").addEventListener("click", guarded(undo));
  $("layer").addEventListener("change", showLayer);
  $("tag-of-map").addEventListener("change", showLayer);
  $("opacity").addEventListener("input", () => { board.setOpacity($("opacity").value / 100); drawTools(); });
  let wait;
  $("threshold").addEventListener("input", () => {
    drawTools();
    clearTimeout(wait);
    wait = setTimeout(guarded(() => redraw(false, false)), 120);
  });
  $("threshold").addEventListener("change", guarded(() => { clearTimeout(wait); return redraw(false, true); }));
  $("refine").addEventListener("click", guarded(() => redraw(true, true)));
  for (const id of TOOLS) $(id).addEventListener("click", () => tool(id));
  $("paint-class").addEventListener("change", () => { board.paintClass = Number($("paint-class").value); });
  $("size").addEventListener("input", () => { board.size = Number($("size").value); drawTools(); });
  $("zoom").addEventListener("input", () => { board.setZoom($("zoom").value / 100); drawTools(); });
  $("files").addEventListener("change", guarded(async () => { await add($("files").files); $("files").value = ""; }));
  $("do-export").addEventListener("click", guarded(exportMasks));
  drawer($("show-export"), "export");
  drawer($("show-progress"), "progress");
  drawer($("show-help"), "help");
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  addEventListener("drop", guarded(async (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    await add(event.dataTransfer.files);
  }));
  addEventListener("keydown", keys);
  addEventListener("resize", () => board.fit());
}

function nudge(id, by) {
  $(id).value = Number($(id).value) + by;
  $(id).dispatchEvent(new Event("input"));
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !state.current) return;
  if (/^(SELECT|TEXTAREA)$/.test(event.target.tagName) || event.target.type === "text") return;
  const actions = {
    j: () => step(1), k: () => step(-1), a: () => decide("accepted"), r: () => decide("rejected"), u: undo,
    b: () => tool("brush"), e: () => tool("eraser"), n: () => board.tool && tool(board.tool), g: () => tool("add-region"), t: () => tool("take-region"),
    o: () => { $("outlines").checked = !$("outlines").checked; board.setOutlines($("outlines").checked); }, s: () => redraw(true, true),
    "[": () => nudge("size", -4), "]": () => nudge("size", 4), "+": () => nudge("zoom", 25), "-": () => nudge("zoom", -25),
  };
  const action = actions[event.key.toLowerCase()];
  const number = Number(event.key);
  if (action) { event.preventDefault(); guarded(async () => action())(); }
  else if (number >= 1 && number <= state.project.classes.length) {
    paintWith(number);
    if (board.tool !== "brush") tool("brush");
  }
}

guarded(async () => {
  const project = await json("/api/project");
  state.project = project;
  $("title").textContent = project.name;
  document.title = `${project.name}: mupvss studio`;
  board.colours = project.colours;
  $("tags").append(...project.classes.map((name, i) => checkbox(name, false, project.colours[i + 1])));
  $("tags").addEventListener("change", guarded(retag));
  $("formats").append(...project.formats.map((name) => checkbox(name, ["masks", "coco"].includes(name))));
  options($("layer"), [...FIRST_LAYERS, ...project.kinds.map((kind) => [kind, `map: ${kind.replaceAll("_", " ")}`])]);
  options($("paint-class"), project.classes.map((name, i) => [String(i + 1), `${i + 1} ${name}`]));
  board.setOpacity(0.4);
  listen();
  drawList();
  drawTools();
  const wanted = decodeURIComponent(location.hash.slice(1));
  const first = project.pictures.find((p) => p.name === wanted) ?? project.pictures.find((p) => p.status === "open") ?? project.pictures[0];
  if (first) await open(first.name);
})();
