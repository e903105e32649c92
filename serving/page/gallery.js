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

// One line per image, in the columns of `pocketnets predict --out FILE.csv`.
export function csv(images) {
  const answers = images.map(({ answer }) => answer).filter(Boolean);
  const { header, cells } = answers.some(({ labels }) => labels) ? SEVERAL : likeliest(answers);
  const lines = images.map(({ file, answer, failure }) => {
    const own = answer ? cells(answer) : header.map(() => "");
    return [file.name, ...own, failure?.message ?? ""];
  });
  const rows = [["path", ...header, "error"], ...lines];
  return rows.map((cells) => cells.map(cell).join(",") + "\r\n").join("");
}

const SEVERAL = {
  header: ["labels", "scores"],
  cells({ labels, predictions }) {
    const had = predictions.filter(({ label }) => labels.includes(label));
    return ["label", "score"].map((name) => had.map((each) => each[name]).join("|"));
  },
};

function likeliest(answers) {
  const count = Math.max(1, ...answers.map(({ predictions }) => predictions.length));
  const places = Array.from({ length: count }, (_, place) => place);
  const abstains = answers.some(({ label }) => label !== undefined);
  const header = places.flatMap((place) => {
    const suffix = place ? `_${place + 1}` : "";
    return [`label${suffix}`, `score${suffix}`];
  });
  return {
    header: abstains ? [...header, "reason"] : header,
    cells({ predictions, label, reason }) {
      const pairs = places.flatMap((place) => {
        const prediction = predictions[place];
        return [prediction?.label ?? "", prediction?.score ?? ""];
      });
      if (label === null) pairs[0] = "";
      return abstains ? [...pairs, reason ?? ""] : pairs;
    },
  };
}

// A spreadsheet would compute what a file or a label says, unless it begins with an apostrophe.
function cell(value) {
  const text = String(value).replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
