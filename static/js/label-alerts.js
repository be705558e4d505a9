// @ts-check
// Messages of the labeling page. Each has a cause and goes when that is gone; they stand at the bottom of the window,
// where the page is always seen, and are announced.

import { findElements } from "./dom.js";
import { labelRoot } from "./label-page.js";

function alertBox() {
  return document.getElementById("label-alert");
}

/**
 * A button that runs something, or a link that opens in a new window.
 * @param {{ label: string, run?: () => void, href?: string }} action
 */
function createAction({ label, run, href }) {
  const action = document.createElement(href ? "a" : "button");
  action.textContent = label;
  if (href) return Object.assign(action, { href, target: "_blank", rel: "noopener" });
  return Object.assign(action, { type: "button", className: "small", onclick: run });
}

/**
 * Show a message in place of the last one with the same cause.
 * @param {string} cause
 * @param {string} text
 * @param {...{ label: string, run?: () => void, href?: string }} actions
 */
export function showAlert(cause, text, ...actions) {
  const message = document.createElement("p");
  message.className = "notice warn";
  message.dataset.cause = cause;
  message.append(`${text} `);
  for (const action of actions) message.append(createAction(action), " ");
  const previous = alertBox().querySelector(`[data-cause="${cause}"]`);
  if (previous?.textContent === message.textContent) return;
  if (previous) previous.replaceWith(message);
  else alertBox().append(message);
  alertBox().hidden = false;
}

/** @param {string} cause */
export function hasAlert(cause) {
  return Boolean(alertBox()?.querySelector(`[data-cause="${cause}"]`));
}

/**
 * Take messages away. What the server refused, and said in the page itself, has the cause "refused".
 * @param {...string} causes
 */
export function clearAlerts(...causes) {
  const box = alertBox();
  if (!box) return;
  for (const message of findElements("[data-cause], .error", box)) {
    if (causes.includes(message.dataset.cause ?? "refused")) message.remove();
  }
  if (!box.childElementCount) box.hidden = true;
}

export function showSignedOut() {
  showAlert("signed-out", "You are signed out. What you wrote is kept here.", {
    label: "Sign in in a new window",
    href: labelRoot.dataset.login,
  });
}

/**
 * Show beside the buttons what happens to the draft.
 * @param {string} text
 */
export function showDraftState(text) {
  const state = document.getElementById("draft-state");
  if (state) state.textContent = text;
}
