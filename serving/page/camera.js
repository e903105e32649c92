// The camera of this machine: opened by a button, seen in the frame, closed after one picture.

import { at } from "./drawing.js";
import { grab, stopLive } from "./live.js";

let stream = null;
let asked = false; // the browser is asking the user right now

export const isAvailable = Boolean(navigator.mediaDevices?.getUserMedia); // https and localhost

export async function openCamera() {
  if (asked || stream) return;
  asked = true;
  at("notice").textContent = "";
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const refused = error.name === "NotAllowedError";
    at("notice").textContent = refused
      ? "The camera is blocked: allow it for this page in the browser."
      : "No camera was found.";
    return;
  } finally {
    asked = false;
  }
  draw();
  at("shoot").focus();
}

export function closeCamera() {
  if (!stream) return;
  stopLive();
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  draw();
  at("camera").focus();
}

export async function shoot(take) {
  const file = await grab(at("viewfinder"), Infinity);
  if (file) take([file]);
}

function draw() {
  at("viewfinder").srcObject = stream;
  at("viewfinder").hidden = at("shooting").hidden = !stream;
  at("choosing").hidden = Boolean(stream);
}
