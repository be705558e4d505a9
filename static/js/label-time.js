// @ts-check
// The time that a person works on a task: while the page is seen and was touched a short while ago. It goes on after a
// reload, and after an undo from what the label had.
"use strict";

(() => {
  const IDLE = 30_000; // ms without a touch after which time does not count as work
  const TICK = 250; // ms
  const PREFIX = "label-time:";

  let name = "",
    seconds = 0,
    lastTick = 0,
    lastTouch = 0;

  const keep = () => {
    if (name) sessionStorage.setItem(name, seconds.toFixed(1));
  };

  function tick() {
    const now = performance.now();
    const passed = Math.min(now - lastTick, 4 * TICK); // a browser that slept did not work
    lastTick = now;
    if (name && document.visibilityState === "visible" && now - lastTouch < IDLE) seconds += passed / 1000;
  }

  Label.seconds = () => {
    tick();
    return seconds.toFixed(1);
  };
  Label.forgetTime = () => {
    if (name) sessionStorage.removeItem(name);
    name = "";
  };

  Label.onReady((element) => {
    lastTick = lastTouch = performance.now();
    name = Label.form ? PREFIX + element.dataset.task : "";
    if (!name) return;
    seconds = Math.max(Number(Label.form.elements.active_seconds.value), Number(sessionStorage.getItem(name) ?? 0));
  });
  for (const event of ["keydown", "pointerdown", "pointermove", "scroll"]) {
    document.addEventListener(
      event,
      () => {
        lastTouch = performance.now();
      },
      { passive: true, capture: true },
    );
  }
  setInterval(tick, TICK);
  window.addEventListener("pagehide", keep);
})();
