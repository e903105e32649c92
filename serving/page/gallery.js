// The gallery of several images: in which order they are seen, and their answers as a CSV file.

import { at } from "./drawing.js";

const score = ({ answer }) => answer?.predictions[0].score;

// What has no answer is last, whichever way scores are sorted.
const ORDERS = {
  chosen: () => 0,
  highest: (a, b) => (score(b) ?? -1) - (score(a) ?? -1),
  lowest: (a, b) => (score(a) ?? 2) - (score(b) ?? 2),
};

export function sortImages(images) {
  const rows = images.toSorted(ORDERS[at("order").value]).map(({ row }) => row.parentElement);
  const shown = [...at("list").children];
  if (rows.some((row, index) => row !== shown[index])) {
    const focused = document.activeElement; // moving an element takes its focus away
    at("list").replaceChildren(...rows);
    focused?.focus();
  }
}

export function saveAnswers(images) {
  const url = URL.createObjectURL(new Blob([csv(images)], { type: "text/csv" }));
  Object.assign(document.createElement("a"), { href: url, download: "predictions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url));
}

// One line per image: its answer, then its predictions, then why there is none.
export function csv(images) {
  const counts = images.map(({ answer }) => answer?.predictions.length ?? 0);
  const places = Array.from({ length: Math.max(...counts) }, (_, place) => place);
  const header = places.flatMap((place) => [`label_${place + 1}`, `score_${place + 1}`]);
  const lines = images.map(({ file, answer, failure }) => {
    const cells = places.flatMap((place) => {
      const prediction = answer?.predictions[place];
      return [prediction?.label ?? "", prediction?.score ?? ""];
    });
    return [file.name, answer ? label(answer) : "", ...cells, failure?.message ?? ""];
  });
  const rows = [["file", "answer", ...header, "error"], ...lines];
  return rows.map((cells) => cells.map(cell).join(",") + "\r\n").join("");
}

function label({ predictions: [first], labels, label }) {
  if (labels) return labels.join("|");
  return label === null ? "" : first.label;
}

// A spreadsheet would compute what a file or a label says, unless it begins with an apostrophe.
function cell(value) {
  const text = String(value).replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
