// Draws facts, predictions and timings. What the server or a file says is set as text only, never
// as markup: a label may hold anything.

const STAGES = ["decode", "resize", "queue", "inference"]; // of timings_ms, in order

export const at = (id) => document.getElementById(id);

function make(tag, name, ...content) {
  const element = document.createElement(tag);
  element.className = name;
  element.append(...content);
  return element;
}

export function drawModel({ model, precision, runtime, metrics, task }) {
  at("model").textContent = model;
  at("precision").textContent = precision;
  at("runtime").textContent = runtime;
  const [name, figure] = task === "multi" ? ["mAP", metrics?.mean_ap] : ["Top-1", metrics?.top1];
  at("figure").textContent = name;
  at("top1").textContent = metrics ? percent(figure) : "not measured";
  document.title = `${model} · Pocketnets`;
}

// With one model there is nothing to choose.
export function drawModels(names, chosen) {
  const options = names.map((name) => {
    const fields = { value: name, selected: name === chosen };
    return Object.assign(make("option", "", name), fields);
  });
  at("models").replaceChildren(...options);
  at("choice").hidden = names.length < 2;
}

export function welcome({ accepts, limits }) {
  return `${accepts.types.join(", ")}, up to ${bytes(limits.max_bytes, Math.floor)}`;
}

export function drawChoices(choices, chosen) {
  for (const label of at("top-k").querySelectorAll("label")) label.remove();
  for (const k of choices) {
    const fields = { type: "radio", name: "top-k", value: k, checked: k === chosen };
    at("top-k").append(make("label", "", Object.assign(make("input", ""), fields), `${k}`));
  }
}

// Without predictions the bars are empty: they hold the places, so that nothing moves later.
export function drawBars(answer, count) {
  const { predictions, labels } = answer ?? {};
  const most = Math.max(count, predictions?.findLastIndex(isAbove) + 1 || 0); // labels it has
  const bars = Array.from({ length: most }, (_, i) => makeBar(predictions?.[i]));
  at("bars").replaceChildren(...bars);
  at("bars").classList.toggle("several", Boolean(labels));
  at("verdict").textContent = answer ? verdict(answer) : "";
  at("verdict").hidden = !at("verdict").textContent;
}

// An image has the label of a prediction if its score is above the threshold, where there is one.
function isAbove({ score, threshold }) {
  return score > threshold;
}

// What the bars alone do not say: how many labels an image has, or that its best one is unsure.
function verdict({ labels, label }) {
  if (labels?.length) return `The image has ${labels.length === 1 ? "one label" : `${labels.length} labels`}. The mark on a bar is the score above which it has that label.`;
  if (labels) return "The image has no label: no score is above its mark.";
  return label === null ? "Unsure: the best score is too low to be an answer." : "";
}

function makeBar(prediction) {
  const label = make("span", "label", prediction?.label ?? "");
  const score = make("span", "score", prediction ? percent(prediction.score) : "");
  const track = make("div", "track");
  if (prediction) {
    const fill = make("div", "fill");
    fill.style.width = `${100 * prediction.score}%`;
    track.append(fill);
  }
  if (prediction?.threshold !== undefined) {
    const mark = make("div", "mark");
    mark.style.left = `${100 * prediction.threshold}%`;
    track.append(mark);
  }
  return make("li", prediction && isAbove(prediction) ? "above" : "", label, score, track);
}

export function drawTimings(timings, roundTrip) {
  const sum = timings && STAGES.reduce((total, stage) => total + timings[stage], 0);
  at("server").textContent = milliseconds(sum);
  at("round-trip").textContent = milliseconds(roundTrip);
  const parts = STAGES.map((stage) => {
    const part = make("div", stage);
    part.style.flexGrow = timings ? (100 * timings[stage]) / sum : 0;
    return part;
  });
  at("stack").replaceChildren(...(timings ? parts : []));
  const values = STAGES.map((stage) => {
    const value = make("dd", "", milliseconds(timings?.[stage]));
    return make("div", stage, make("dt", "", stage), value);
  });
  at("stages").replaceChildren(...values);
}

export function makeRow({ url, file }, choose) {
  const picture = Object.assign(make("img", "thumb"), { src: url, alt: "", loading: "lazy" });
  picture.addEventListener("error", () => picture.replaceWith(make("span", "thumb")));
  const row = make("button", "", picture, make("span", "label"), make("span", "quiet", file.name));
  row.type = "button";
  row.addEventListener("click", choose);
  return row;
}

export function drawRow(row, answer, failure) {
  const label = row.querySelector(".label");
  label.textContent = failure ? "failed" : answer ? best(answer) : "waiting";
  label.classList.toggle("failed", Boolean(failure));
}

export function best({ predictions: [first], labels, label }) {
  if (labels) return labels.join(", ") || "no label";
  if (label === null) return "unsure";
  return `${first.label}, ${percent(first.score)}`;
}

function percent(share) {
  if (share > 0 && share < 0.0005) return "< 0.1\u00a0%";
  if (share < 1 && share >= 0.9995) return "> 99.9\u00a0%";
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

function milliseconds(value) {
  return value === undefined ? "–" : `${value.toFixed(value < 10 ? 2 : 1)}\u00a0ms`;
}

export function bytes(count, round = Math.ceil) {
  if (count < 1e6) return `${round(count / 1e3)}\u00a0kB`;
  return `${round(count / 1e5) / 10}\u00a0MB`;
}
