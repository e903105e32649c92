// Classifies what the camera sees, frame after frame. The next one is taken when the answer to the
// last has come: frames that came meanwhile are dropped, and none ever waits.

import { at } from "./drawing.js";

const SIDE = 640; // longest side of a frame that is sent, in pixels: networks see fewer
const WINDOW = 20; // frames that the rate is of

let running = null; // an AbortController

export const isLive = () => Boolean(running);

export function stopLive() {
  running?.abort();
  running = null;
  document.body.classList.remove("live");
  at("live").textContent = "Classify all the time";
  at("rate").textContent = "";
}

// Calls answer(file, signal) for frame after frame, until it returns false, or stopLive is called.
export async function startLive(answer) {
  const mine = new AbortController();
  running = mine;
  document.body.classList.add("live"); // in which bars do not grow anew with every frame
  at("live").textContent = "Stop";
  const times = [];
  while (running === mine) {
    await nextFrame(at("viewfinder"));
    const file = running === mine && (await grab(at("viewfinder")));
    if (!file) continue;
    const goesOn = await answer(file, mine.signal);
    if (running !== mine) return;
    if (!goesOn) return stopLive();
    times.push(performance.now());
    if (times.length > WINDOW) times.shift();
    at("rate").textContent = rate(times);
  }
}

export async function grab(video, side = SIDE) {
  const { videoWidth, videoHeight, readyState } = video;
  if (readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return null; // no frame has come yet
  const scale = Math.min(1, side / Math.max(videoWidth, videoHeight));
  const [width, height] = [videoWidth, videoHeight].map((each) => Math.round(each * scale));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(video, 0, 0, width, height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
  return new File([blob], "camera.jpg", { type: blob.type });
}

function rate(times) {
  if (times.length < 2) return "";
  const seconds = (times.at(-1) - times[0]) / 1000;
  return `${((times.length - 1) / seconds).toFixed(1)} frames/s`;
}

function nextFrame(video) {
  return new Promise((done) => {
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(done);
    else requestAnimationFrame(done);
  });
}
