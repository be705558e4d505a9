// @ts-check
// The labeling page: what happens when a task is shown, and its keys.

import { closestElement, eventElement, findElement } from "./dom.js";
import { sendBacklog } from "./label-backlog.js";
import { forgetVersions } from "./label-conflict.js";
import { openDialog } from "./label-dialogs.js";
import { startDrafts } from "./label-drafts.js";
import { refreshForm } from "./label-fields.js";
import { areSingleKeysOff, isAllowedSingleKey, isSingleKey, readKey, switchSingleKeysOff } from "./label-keys.js";
import { startRenewing } from "./label-lease.js";
import { isSkipping } from "./label-lock.js";
import { announce, labelElement, labelForm, labelRoot } from "./label-page.js";
import { startRanking } from "./label-rank.js";
import { restoreDraft } from "./label-restore.js";
import { startSending, undoLast } from "./label-send.js";
import { startTime } from "./label-time.js";
import { markPlainTextButtons, togglePlainText } from "./plain-text.js";

// ---- showing a task

/** @param {boolean} isFirst whether it came with the page, rather than after another task */
function showTask(isFirst) {
  startTime();
  forgetVersions();
  startSending();
  startRanking();
  startDrafts();
  startRenewing();
  if (labelForm()) restoreDraft();
  sendBacklog();
  if (labelForm()) labelForm().noValidate = true; // what is missing is said in the page's own words
  refreshForm();
  markPlainTextButtons();
  const prompt = findElement(".label-prompt", labelElement());
  if (prompt?.querySelector(".turn")) prompt.scrollTop = prompt.scrollHeight; // what to answer is the last turn
  followKeySwitch();
  focusStart();
  if (!isFirst) announceTask();
}

function followKeySwitch() {
  const keysOff = /** @type {HTMLInputElement} */ (document.getElementById("label-keys-off"));
  keysOff.checked = areSingleKeysOff();
  keysOff.addEventListener("change", () => switchSingleKeysOff(keysOff.checked));
}

function focusStart() {
  /** @type {HTMLTextAreaElement | null} */
  const box = labelElement().querySelector("textarea[data-first]");
  const start = box ?? findElement(".reply", labelElement()) ?? document.getElementById("label-title");
  start.focus({ preventScroll: true });
  box?.setSelectionRange(box.value.length, box.value.length);
}

function announceTask() {
  window.scrollTo({ top: 0 });
  const saved = labelElement().querySelector(".label-saved span, span.label-saved")?.textContent ?? "";
  announce(`${saved} ${document.getElementById("label-title").textContent}.`.trim());
  document.body.dispatchEvent(new Event("labeled")); // the counts of what is left follow
}

// ---- keys

/** @param {KeyboardEvent} event */
function handleKey(event) {
  const element = eventElement(event);
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter" && labelForm()) {
    event.preventDefault();
    labelForm().requestSubmit();
  } else if (event.altKey && event.code === "KeyP") {
    togglePreview(event);
  } else if (event.key === "Escape" && isField(element)) {
    const outside = closestElement(event, ".reply") ?? document.getElementById("label-title");
    outside.focus({ preventScroll: true });
  } else if (/^Arrow(Up|Down)$/.test(event.key) && element.matches(".skip .items button")) {
    event.preventDefault();
    moveInSkipMenu(event);
  } else if (isAllowedSingleKey(event)) {
    handleSingleKey(event);
  } else if (isSkipping() && isSingleKey(event) && readKey(event) === "u") {
    event.preventDefault();
    undoLast();
  }
}

/** @param {Element} element */
function isField(element) {
  const { form } = /** @type {HTMLInputElement} */ (element);
  return form === labelForm() && element.matches("textarea, select, input") && !document.querySelector("dialog[open]");
}

/** @param {KeyboardEvent} event */
function togglePreview(event) {
  /** @type {HTMLDetailsElement | null} */
  const preview = labelElement().querySelector("details.preview");
  if (!preview) return;
  event.preventDefault();
  preview.open = !preview.open;
}

function openSkipMenu() {
  /** @type {HTMLDetailsElement | null} */
  const menu = labelElement().querySelector("details.skip");
  if (!menu) return;
  menu.open = true;
  menu.querySelector("button").focus();
}

/** @param {KeyboardEvent} event */
function moveInSkipMenu(event) {
  const buttons = [...closestElement(event, ".items").querySelectorAll("button")];
  const current = buttons.findIndex((button) => button === event.target);
  const step = event.key === "ArrowDown" ? 1 : -1;
  buttons.at((current + step) % buttons.length).focus();
}

/** @type {Record<string, () => void>} */
const KEY_ACTIONS = {
  "?": () => openDialog("label-help"),
  g: () => openDialog("label-guidelines"),
  s: openSkipMenu,
  u: undoLast,
  w: () => document.getElementById("id_reason")?.focus(),
  p: togglePlainText,
};

/** @param {KeyboardEvent} event */
function handleSingleKey(event) {
  const key = readKey(event);
  const form = labelForm();
  const choice = form && findElement(`input[data-key="${CSS.escape(key)}"]`, form);
  const submits = event.key === "Enter" && form && !eventElement(event).matches("button, a, summary, [type=checkbox]");
  if (choice) {
    choice.click();
    choice.focus();
  } else if (Object.hasOwn(KEY_ACTIONS, key)) {
    KEY_ACTIONS[key]();
  } else if (submits) {
    form.requestSubmit();
  } else return;
  event.preventDefault();
}

document.addEventListener("keydown", handleKey);
labelRoot.addEventListener("click", (event) => {
  const opener = closestElement(event, "[data-opens]");
  if (opener) openDialog(opener.dataset.opens);
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted && navigator.onLine) location.reload(); // from the back-forward cache, the page may be an old one
});
// A restored submission is sent through htmx, which takes over the page's forms in its own listener, before this one.
document.addEventListener("DOMContentLoaded", () => showTask(true));
document.addEventListener("htmx:load", (event) => {
  if (event.detail.elt.id === "label") showTask(false);
});
