// @ts-check
// The time that a person works on a task: while the page is seen and was touched a short while ago. It goes on after a
// reload, and after an undo from what the label had.

import { hiddenField, labelElement, labelForm } from "./label-page.js";

const IDLE = 30_000; // ms without a touch after which time does not count as work
const TICK = 250; // ms
const PREFIX = "label-time:";

let storageName = ""; // of the task's time; empty while there is no task
let seconds = 0;
let lastTick = 0;
let lastTouch = 0;

function countTime() {
  const now = performance.now();
  const passed = Math.min(now - lastTick, 4 * TICK); // a browser that slept did not work
  lastTick = now;
  if (storageName && document.visibilityState === "visible" && now - lastTouch < IDLE) seconds += passed / 1000;
}

/** Seconds of work on this task, with a tenth. */
export function readActiveSeconds() {
  countTime();
  return seconds.toFixed(1);
}

export function forgetTime() {
  if (storageName) sessionStorage.removeItem(storageName);
  storageName = "";
}

/** Count from what this task has already taken. */
export function startTime() {
  lastTick = lastTouch = performance.now();
  storageName = labelForm() ? PREFIX + labelElement().dataset.task : "";
  if (!storageName) return;
  seconds = Math.max(Number(hiddenField("active_seconds").value), Number(sessionStorage.getItem(storageName) ?? 0));
}

for (const event of ["keydown", "pointerdown", "pointermove", "scroll"]) {
  document.addEventListener(
    event,
    () => {
      lastTouch = performance.now();
    },
    { passive: true, capture: true },
  );
}
setInterval(countTime, TICK);
window.addEventListener("pagehide", () => {
  if (storageName) sessionStorage.setItem(storageName, seconds.toFixed(1));
});
