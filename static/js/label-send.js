// @ts-check
// A submission stays in this browser until the server has said that it has it, and is sent again with the same token.
// Meanwhile the form is locked, so that what is sent again is what was sent; to change it is to replace it.
// One action is under way at a time. An undo that is asked for meanwhile is about that one, and follows it.

import { clearAlerts, hasAlert, showAlert, showDraftState, showSignedOut } from "./label-alerts.js";
import { showVersions } from "./label-conflict.js";
import { forgetCurrentDraft, keepSubmission, markTyped, saveDraft } from "./label-drafts.js";
import { readCsrfToken } from "./label-http.js";
import { isChoosingVersion, isSkipping, underWay } from "./label-lock.js";
import { announce, hiddenField, labelForm, labelRoot } from "./label-page.js";
import { describeMissingRanks, focusUnrankedReply } from "./label-rank.js";
import { forgetTime, readActiveSeconds } from "./label-time.js";
import { createToken } from "./token.js";

/** @import { PendingSubmission } from "./label-lock.js" */

const MAX_WAIT = 30; // seconds between two tries
let retries = 0;
let retryTimer = 0;
let undoNext = false; // whether an undo follows what is under way
/** @type {HTMLElement | null} */
let focusedField = null; // while the form is locked

/** @param {HtmxEvent} event */
function isSubmission(event) {
  return event.detail.elt.id === "label-form";
}

/** @param {HtmxEvent} event */
function changesDraft(event) {
  return isSubmission(event) || event.detail.elt.id === "label-skip";
}

function lockForm() {
  const fields = document.getElementById("label-fields");
  if (fields.contains(document.activeElement)) focusedField = /** @type {HTMLElement} */ (document.activeElement);
  fields.inert = true;
  fields.classList.add("locked");
}

function unlockForm() {
  const fields = document.getElementById("label-fields");
  fields.inert = isChoosingVersion();
  fields.classList.remove("locked");
  focusedField?.focus({ preventScroll: true });
  focusedField = null;
}

/** A task is shown: what was under way is done, and an undo that was asked for meanwhile follows. */
export function startSending() {
  clearTimeout(retryTimer);
  const undoes = undoNext;
  Object.assign(underWay, { isSending: false, pending: null, action: null });
  [retries, retryTimer, focusedField, undoNext] = [0, 0, null, false];
  if (undoes) undoLast();
}

// ---- submitting

/** @param {HtmxEvent} event */
function beginSubmission(event) {
  if (underWay.isSending || underWay.action) return event.preventDefault();
  const missing = describeMissingRanks();
  if (missing || isChoosingVersion()) {
    event.preventDefault();
    if (isChoosingVersion()) showVersions();
    else {
      showAlert("missing", missing);
      focusUnrankedReply();
    }
    return;
  }
  underWay.isSending = true;
  lockForm();
  showDraftState("Sending…");
  const fields = /** @type {[string, string][]} */ ([...new FormData(labelForm())]).filter(
    ([name]) => name !== "csrfmiddlewaretoken" && name !== "active_seconds",
  );
  underWay.pending = {
    url: labelForm().action,
    token: hiddenField("token").value,
    body: [...fields, ["active_seconds", readActiveSeconds()]],
  };
  keepSubmission(underWay.pending);
}

function retryLater() {
  underWay.isSending = false;
  if (undoNext) return changeSubmission();
  retries += 1;
  showAlert(
    "away",
    "The server does not answer. Your answer is kept in this browser and is sent again by itself.",
    { label: "Send now", run: resend },
    { label: "Change it", run: changeSubmission },
  );
  showDraftState("Not sent yet");
  clearTimeout(retryTimer);
  retryTimer = setTimeout(resend, 1000 * Math.min(MAX_WAIT, 2 ** retries));
}

function resend() {
  clearTimeout(retryTimer);
  retryTimer = 0;
  if (labelForm() && underWay.pending && !underWay.isSending) labelForm().requestSubmit();
}

/** The server answers again: send what waits, unless that is about to happen. */
export function resendSubmission() {
  if (underWay.pending && !underWay.isSending && !retryTimer) resend();
}

/**
 * Go on with a submission that this browser kept.
 * @param {PendingSubmission} pending
 */
export function adoptSubmission(pending) {
  underWay.pending = pending;
  lockForm();
  retryTimer = setTimeout(resend, 0);
}

// The answer may have arrived all the same, so the next one says which it replaces. If it is being sent again right now,
// the response must not take away the page that is being typed into.
function changeSubmission() {
  clearTimeout(retryTimer);
  if (underWay.isSending) htmx.trigger(labelForm(), "htmx:abort");
  forgetCurrentDraft();
  const replaces = hiddenField("replaces");
  replaces.value = `${replaces.value} ${underWay.pending.token}`.trim();
  hiddenField("token").value = createToken();
  Object.assign(underWay, { isSending: false, pending: null });
  [retryTimer, undoNext] = [0, false];
  clearAlerts("away");
  unlockForm();
  markTyped();
}

function giveUp() {
  Object.assign(underWay, { isSending: false, pending: null });
  undoNext = false;
  unlockForm();
  showDraftState("");
  keepSubmission(null);
}

// ---- skipping and undoing

/** @param {HtmxEvent} event */
function beginSkip(event) {
  if (underWay.isSending || underWay.action) return event.preventDefault();
  underWay.action = event.detail.elt;
  lockForm();
  showDraftState("Skipping…");
}

// The button names an older action. An answer that could not be sent yet is opened again; one that is on its way, and a
// skip, are undone when the server has them.
/** @param {HtmxEvent} event */
function beginUndo(event) {
  const { isSending, pending, action } = underWay;
  if (!isSending && !pending && !action) {
    underWay.action = event.detail.elt;
    return;
  }
  event.preventDefault();
  if (isSending || isSkipping()) undoWhatIsUnderWay();
  else if (pending) changeSubmission();
}

function undoWhatIsUnderWay() {
  undoNext = true;
  showDraftState("Undoing…");
  announce("It is undone as soon as the server has it.");
}

/** Undo what the person did last, be it done or under way. */
export function undoLast() {
  if (isSkipping()) return undoWhatIsUnderWay();
  /** @type {HTMLFormElement | null} */ (document.getElementById("label-undo"))?.requestSubmit();
}

/** @param {HtmxEvent} event */
function endAction(event) {
  if (event.detail.elt !== underWay.action) return;
  if (isSkipping()) {
    unlockForm();
    showDraftState("");
  }
  underWay.action = null;
  undoNext = false;
}

// ---- answers of the server

/** @param {HtmxEvent} event */
function handleRefusal(event) {
  event.stopPropagation();
  const { xhr } = event.detail;
  if (isSubmission(event) && (xhr.status >= 500 || xhr.status === 429)) return retryLater();
  if (isSubmission(event)) giveUp();
  const page = new DOMParser().parseFromString(xhr.responseText, "text/html");
  /** @type {HTMLElement | null} */
  const message = page.querySelector("[data-error-message]");
  const code = message?.dataset.errorCode;
  if (code === "csrf_failed") return showSignedOut(); // not read for want of a cookie
  if (changesDraft(event) && code === "draft_conflict") return saveDraft(); // which offers both
  const text = `The server answered ${xhr.status}. What you wrote is kept; reload the page and try again.`;
  showAlert("refused", message?.textContent.trim() ?? text);
}

/** @param {HtmxEvent} event */
function handleSilence(event) {
  event.stopPropagation();
  if (isSubmission(event)) retryLater();
  else showAlert("refused", "The server does not answer. Try again in a moment; what you wrote is kept.");
}

/** @type {Record<string, (event: HtmxEvent) => void>} */
const BEGINNINGS = { "label-form": beginSubmission, "label-skip": beginSkip, "label-undo": beginUndo };

labelRoot.addEventListener("htmx:configRequest", (event) => {
  const { parameters, headers } = event.detail;
  delete parameters.csrfmiddlewaretoken; // it is an old one after signing in again; the cookie has the new one
  headers["X-CSRFToken"] = readCsrfToken();
  if (!changesDraft(event)) return;
  parameters.active_seconds = readActiveSeconds();
  parameters.typed_at = String(Date.now());
});
labelRoot.addEventListener("htmx:beforeRequest", (event) => BEGINNINGS[event.detail.elt.id]?.(event));
labelRoot.addEventListener("htmx:afterRequest", endAction);
labelRoot.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr, requestConfig } = event.detail;
  if (xhr.status >= 400) return;
  if (!xhr.responseText.includes('id="label"')) {
    // the sign-in page
    event.detail.shouldSwap = false;
    if (isSubmission(event)) giveUp();
    showSignedOut();
  } else if (requestConfig.elt.id !== "label-undo") {
    forgetCurrentDraft(); // the server has it
    forgetTime();
  }
});
labelRoot.addEventListener("htmx:responseError", handleRefusal);
labelRoot.addEventListener("htmx:sendError", handleSilence);
labelRoot.addEventListener("htmx:timeout", handleSilence);
window.addEventListener("online", () => {
  if (underWay.pending) resend();
});
// What is missing, or was refused, is not said any longer than it is so.
labelRoot.addEventListener("input", () => {
  clearAlerts("refused");
  if (!hasAlert("missing")) return;
  const missing = describeMissingRanks();
  if (missing) showAlert("missing", missing);
  else clearAlerts("missing");
});
