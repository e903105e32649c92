// The page at "/": images go to POST /predict one by one, or to that of the chosen model; each
// answer is seen beside its picture.

import { closeCamera, isAvailable, openCamera, shoot } from "./camera.js";
import * as drawing from "./drawing.js";
import { saveAnswers, sortImages } from "./gallery.js";
import { isLive, startLive, stopLive } from "./live.js";
import { Failure, ask, keepToken } from "./server.js";

const CHOICES = [1, 3, 5, 10]; // of how many predictions are seen; the most are always asked for

const { at } = drawing;

let chosen = ""; // name of the model that is asked; empty for the default
let facts = null; // what GET /model answered, or that of the chosen model
let refusal = null; // why it did not
let images = []; // of the last choice: {file, url, row, answer, roundTrip, failure, noPreview}
let shown = null; // the one whose picture and answer are seen
let count = 5; // of predictions seen
let asking = new AbortController();

// Asking ----------------------------------------------------------------------------------------

async function loadModel(signal) {
  const { models, default: usual } = await ask("models", { signal });
  const names = models.filter(({ current }) => current).map(({ name }) => name);
  if (!names.includes(chosen) || chosen === usual) chosen = "";
  drawing.drawModels(names, chosen || usual);
  facts = await ask(chosen ? `models/${chosen}` : "model", { signal });
  at("address").textContent = new URL(predictPath(), document.baseURI).href;
  const all = facts.labels.length;
  const choices = CHOICES.filter((k) => k < all);
  if (all <= CHOICES.at(-1)) choices.push(all);
  count = Math.min(count, all);
  if (!choices.includes(count)) count = choices.at(-1);
  at("files").accept = ["image/*", ...facts.accepts.suffixes].join(); // some systems know few types
  drawing.drawModel(facts);
  drawing.drawChoices(choices, count);
}

function predictPath() {
  return chosen ? `models/${chosen}/predict` : "predict";
}

async function classify(image, signal) {
  if (!facts) await loadModel(signal);
  const { file } = image;
  const limit = facts.limits.max_bytes;
  if (file.size > limit) {
    const [has, may] = [drawing.bytes(file.size), drawing.bytes(limit, Math.floor)];
    throw new Failure(`${file.name} has ${has}; this server takes up to ${may}.`);
  }
  const body = await file.arrayBuffer().catch(() => {
    throw new Failure(`${file.name} cannot be read.`);
  });
  const kind = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  const most = Math.min(CHOICES.at(-1), facts.labels.length);
  const options = { method: "POST", body, headers: { "Content-Type": kind }, signal };
  const started = performance.now();
  const answer = await ask(`${predictPath()}?top_k=${most}`, options);
  Object.assign(image, { answer, roundTrip: performance.now() - started });
}

// Asks for every image that has neither answer nor failure; ends what an earlier call began.
async function work() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  refusal = null;
  draw();
  for (const image of images.filter((each) => !each.answer && !each.failure)) {
    let failure = null;
    await classify(image, signal).catch((error) => (failure = error));
    if (signal.aborted) return;
    image.failure = failure;
    if (failure && !(failure instanceof Failure)) throw failure;
    if (image === shown) drawResult();
    drawList();
    if (failure?.status === 401) return at("token").focus(); // all others would be refused, too
  }
  announce();
}

// Asks for a frame of the camera; returns whether to go on with the next one.
async function classifyFrame(file, signal) {
  const image = { file, frame: true };
  const failure = await classify(image, signal).then(() => null, (error) => error);
  if (signal.aborted) return false;
  shown = Object.assign(image, { failure });
  drawResult();
  if (failure && !(failure instanceof Failure)) throw failure;
  return !failure;
}

// The last frame stays as a picture with its answer.
function endLive() {
  stopLive();
  if (shown?.frame) take([shown.file]);
}

function leaveCamera() {
  closeCamera();
  if (!shown?.frame) return;
  shown = images[0] ?? null;
  draw();
}

async function start() {
  refusal = null;
  draw();
  await loadModel().catch((error) => (refusal = error));
  draw();
  if (refusal?.status === 401) at("token").focus();
}

function chooseModel(name) {
  chosen = name;
  facts = null;
  for (const image of images) image.answer = image.failure = null;
  return images.length ? work() : start();
}

function tryAgain() {
  for (const image of images) {
    if (image.failure?.passes || image.failure?.status === 401) image.failure = null;
  }
  return images.length ? work() : start();
}

// Taking images ---------------------------------------------------------------------------------

function take(files) {
  closeCamera();
  at("notice").textContent = at("status").textContent = "";
  if (!files.length) return;
  for (const image of images) URL.revokeObjectURL(image.url);
  images = Array.from(files, (file) => ({ file, url: URL.createObjectURL(file) }));
  const listed = images.length > 1 ? images : [];
  for (const image of listed) image.row = drawing.makeRow(image, () => show(image));
  const entries = listed.map(({ row }) => {
    const entry = document.createElement("li");
    entry.append(row);
    return entry;
  });
  at("list").replaceChildren(...entries);
  at("images").hidden = !listed.length;
  show(images[0]);
  work();
}

function drop(transfer) {
  take(transfer.files);
  if (transfer.files.length) return;
  at("notice").textContent = "That was a link, not a file: save the image, then drop its file.";
}

// Drawing ---------------------------------------------------------------------------------------

function show(image) {
  shown = image;
  at("photo").src = image.url;
  at("photo").alt = image.file.name;
  draw();
}

function draw() {
  drawPicture();
  drawResult();
  drawList();
}

function drawResult() {
  const { answer, roundTrip, failure = refusal } = shown ?? {};
  at("failure").textContent = failure?.message ?? "";
  at("again").hidden = !failure?.passes;
  at("access").hidden = failure?.status !== 401;
  at("answer").hidden = Boolean(failure);
  at("result").ariaBusy = Boolean(shown && !answer && !failure);
  drawing.drawBars(answer, count);
  drawing.drawTimings(answer?.timings_ms, roundTrip);
}

function drawPicture() {
  at("stage").classList.toggle("filled", Boolean(shown));
  at("empty").hidden = Boolean(shown);
  at("photo").hidden = !shown || Boolean(shown.noPreview);
  at("no-preview").hidden = !shown?.noPreview;
  if (!shown) {
    at("caption").textContent = facts ? drawing.welcome(facts) : "";
    return;
  }
  const { name, size } = shown.file;
  const { naturalWidth: width, naturalHeight: height, complete } = at("photo");
  const pixels = complete && width ? [`${width} × ${height}`] : [];
  at("photo").classList.toggle("tiny", complete && Math.max(width, height) <= 96);
  at("caption").textContent = [name, ...pixels, drawing.bytes(size)].join(" · ");
}

function drawList() {
  for (const image of images.filter((each) => each.row)) {
    drawing.drawRow(image.row, image.answer, image.failure);
    image.row.ariaCurrent = image === shown ? "true" : null;
  }
  const done = images.filter((each) => each.answer || each.failure).length;
  at("progress").textContent = `${done} of ${images.length}`;
  if (images.length > 1) sortImages(images);
}

function announce() {
  const answered = images.filter((each) => each.answer).length;
  const failed = images.filter((each) => each.failure).length;
  const [{ file, answer }] = images;
  // A lone failure is an alert already.
  const one = answer ? `${file.name}: ${drawing.best(answer)}` : "";
  const many = `${answered} images classified, ${failed} failed`;
  at("status").textContent = images.length > 1 ? many : one;
}

// Listening -------------------------------------------------------------------------------------

const phone = matchMedia("(pointer: coarse)").matches; // its own camera program serves best
at("camera").hidden = !phone && !isAvailable;
at("camera").addEventListener("click", () => (phone ? at("capture").click() : openCamera()));
at("shoot").addEventListener("click", () => shoot(take));
at("live").addEventListener("click", () => (isLive() ? endLive() : startLive(classifyFrame)));
at("cancel").addEventListener("click", leaveCamera);
at("choose").addEventListener("click", () => at("files").click());
at("stage").addEventListener("click", () => at("viewfinder").hidden && at("files").click());
for (const input of [at("files"), at("capture")]) {
  input.addEventListener("change", () => {
    take(input.files);
    input.value = ""; // or the same file could not be chosen again
  });
}
at("photo").addEventListener("load", drawPicture);
at("photo").addEventListener("error", () => {
  shown.noPreview = true;
  drawPicture();
});
at("top-k").addEventListener("change", (event) => {
  count = Number(event.target.value);
  drawResult();
});
at("order").addEventListener("change", drawList);
at("save").addEventListener("click", () => saveAnswers(images));
at("models").addEventListener("change", (event) => chooseModel(event.target.value));
at("again").addEventListener("click", tryAgain);
at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken(at("token").value);
  at("token").value = "";
  tryAgain();
});
addEventListener("keydown", (event) => event.key === "Escape" && leaveCamera());
addEventListener("paste", ({ clipboardData: { files } }) => files.length && take(files));
addEventListener("dragover", (event) => {
  const { types } = event.dataTransfer;
  if (!types.includes("Files") && !types.includes("text/uri-list")) return;
  event.preventDefault(); // everywhere: a file dropped beside the frame would replace the page
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  drop(event.dataTransfer);
});
addEventListener("pagehide", closeCamera);

at("address").textContent = new URL(predictPath(), document.baseURI).href;
start();
