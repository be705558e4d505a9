// @ts-check
// Messages of the labeling page. Each has a cause and goes when that is gone; they stand at the bottom of the window,
// where the page is always seen, and are announced.
"use strict";

(() => {
  const box = () => document.getElementById("label-alert");

  // `actions`: [{label, run}] or [{label, href}].
  Label.warn = (cause, text, ...actions) => {
    const message = document.createElement("p");
    message.className = "notice warn";
    message.dataset.cause = cause;
    message.append(`${text} `);
    for (const { label, run, href } of actions) {
      const action = document.createElement(href ? "a" : "button");
      action.textContent = label;
      if (href) Object.assign(action, { href, target: "_blank", rel: "noopener" });
      else Object.assign(action, { type: "button", className: "small", onclick: run });
      message.append(action, " ");
    }
    const standing = box().querySelector(`[data-cause="${cause}"]`);
    if (standing?.textContent === message.textContent) return;
    if (standing) standing.replaceWith(message);
    else box().append(message);
    box().hidden = false;
  };

  Label.calm = (...causes) => {
    for (const message of box()?.querySelectorAll("[data-cause], .error") ?? []) {
      if (causes.includes(message.dataset.cause ?? "refused")) message.remove();
    }
    if (box() && !box().childElementCount) box().hidden = true;
  };

  Label.say = (text) => {
    const state = document.getElementById("draft-state");
    if (state) state.textContent = text;
  };

  Label.signedOut = () =>
    Label.warn("signed-out", "You are signed out. What you wrote is kept here.", {
      label: "Sign in in a new window",
      href: Label.root.dataset.login,
    });

  // What is missing, or was refused, is not said any longer than it is so.
  Label.root.addEventListener("input", () => {
    Label.calm("refused");
    if (!box()?.querySelector("[data-cause=missing]")) return;
    const missing = Label.missing?.();
    if (missing) Label.warn("missing", missing);
    else Label.calm("missing");
  });
})();
