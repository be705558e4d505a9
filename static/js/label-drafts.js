// @ts-check
// Nothing typed is lost: drafts go to this browser at once and to the server as one types. The server takes a draft only
// from a page that knows the newest one; otherwise both texts are offered. What the server has is not kept here as well.

import { clearAlerts, showAlert, showDraftState, showSignedOut } from "./label-alerts.js";
import { listenToChoices, offerVersion } from "./label-conflict.js";
import { currentDraftName, forgetDraft, keepCurrentDraft, readDraft, writeDraft } from "./label-draft-store.js";
import { postForm, readCsrfToken } from "./label-http.js";
import { isChoosingVersion, isSubmitting } from "./label-lock.js";
import { hiddenField, labelElement, labelForm, labelRoot } from "./label-page.js";
import { readActiveSeconds } from "./label-time.js";

/** @import { OtherVersion, PendingSubmission } from "./label-lock.js" */

const PAUSE = 700; // ms without typing before the draft goes to the server
const RETRY = 5000; // ms before it is tried again

let typedAt = 0; // ms since 1970; 0 while nothing was typed
let savedAt = 0; // the `typedAt` of what the server has
let saveTimer = 0;

/** A task is shown, in which nothing was typed yet. */
export function startDrafts() {
  clearTimeout(saveTimer);
  typedAt = savedAt = 0;
}

/** Whether something was typed that the server does not have. */
export function isDraftUnsaved() {
  return typedAt > savedAt;
}

/** The form was changed by the person: keep it here, and on the server after a pause. */
export function markTyped() {
  typedAt = Math.max(Date.now(), typedAt + 1);
  keepCurrentDraft();
  showDraftState("");
  clearTimeout(saveTimer);
  saveTimer = setTimeout(saveDraft, PAUSE);
}

/**
 * The form has again what was typed at a time before the page was loaded.
 * @param {number} time ms since 1970
 */
export function markTypedAt(time) {
  typedAt = time;
}

/** Save the draft to the server now. */
export async function saveDraft() {
  clearTimeout(saveTimer);
  if (!labelForm() || isChoosingVersion()) return;
  const [element, savedTypedAt, name] = [labelElement(), typedAt, currentDraftName()];
  let response, answer;
  try {
    response = await postForm(element.dataset.draft, draftBody());
    answer = response?.headers.get("Content-Type")?.includes("json") ? await response.json() : {};
    if (response && response.status >= 500) throw new Error(String(response.status));
  } catch {
    if (element !== labelElement()) return;
    showDraftState("Draft kept in this browser");
    saveTimer = setTimeout(saveDraft, RETRY);
    return;
  }
  if (element !== labelElement()) return;
  if (response === null) showSignedOut();
  else if (response.ok) markSaved(answer.revision, savedTypedAt, name);
  else if (answer.code === "draft_conflict") offerVersion({ ...answer.draft, where: "server" });
  else if (answer.code === "answered") showAnsweredElsewhere();
  else {
    const reason = answer.message ?? `The server answered ${response.status}.`;
    showAlert("draft", `The draft was not saved. ${reason} It is kept in this browser.`);
  }
}

function draftBody() {
  const body = new URLSearchParams(/** @type {any} */ (new FormData(labelForm())));
  body.delete("csrfmiddlewaretoken");
  body.set("typed_at", String(typedAt));
  body.set("active_seconds", readActiveSeconds());
  return body;
}

/**
 * @param {string} revision
 * @param {number} savedTypedAt when what was saved had been typed
 * @param {string} name
 */
function markSaved(revision, savedTypedAt, name) {
  hiddenField("revision").value = revision;
  savedAt = Math.max(savedAt, savedTypedAt);
  clearAlerts("signed-out", "draft");
  const isPending = Boolean(readDraft(name)?.pending);
  if (savedTypedAt === typedAt) {
    if (!isPending) forgetDraft(name);
    showDraftState("Draft saved");
  } else if (!isPending) {
    keepCurrentDraft();
  }
}

export function showAnsweredElsewhere() {
  showAlert("answered", "You have answered this task in another window. What you wrote here is kept in this browser.", {
    label: "Next task",
    run: () => location.assign(labelRoot.dataset.next),
  });
}

/** The server has it, or it is to be submitted under another token. */
export function forgetCurrentDraft() {
  if (labelForm()) forgetDraft(currentDraftName());
}

/**
 * Keep the draft with the submission that is under way, or null once none is. It goes to the server no more.
 * @param {PendingSubmission | null} pending
 */
export function keepSubmission(pending) {
  clearTimeout(saveTimer);
  keepCurrentDraft(pending);
}

/**
 * After a choice between two versions: what is in the form now goes on from the other's revision.
 * @param {OtherVersion} other
 */
function continueFrom(other) {
  if (other.revision) hiddenField("revision").value = other.revision;
  if (other.name) forgetDraft(other.name);
  markTyped();
  saveDraft();
}

listenToChoices({ onChoice: continueFrom, onUndo: markTyped });
labelRoot.addEventListener("input", (event) => {
  const input = /** @type {HTMLInputElement} */ (event.target);
  if (input.form === labelForm() && input.name) markTyped();
});
window.addEventListener("pagehide", () => {
  if (!labelForm() || isSubmitting() || isChoosingVersion() || !isDraftUnsaved()) return;
  const body = draftBody();
  body.set("csrfmiddlewaretoken", readCsrfToken());
  writeDraft(currentDraftName(), { ...readDraft(currentDraftName()), left: true });
  navigator.sendBeacon(labelElement().dataset.draft, body);
});
