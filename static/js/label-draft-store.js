// @ts-check
// Drafts as this browser keeps them, one for each task and submission token.

import { showDraftState } from "./label-alerts.js";
import { readFields } from "./label-fields.js";
import { hiddenField, labelElement, labelRoot } from "./label-page.js";

/** @import { Fields } from "./label-fields.js" */
/** @import { PendingSubmission } from "./label-lock.js" */

/**
 * @typedef {object} KeptDraft
 * @property {number} typedAt ms since 1970
 * @property {Fields} fields
 * @property {string} base the revision of the server's draft that it began from
 * @property {string} replaces tokens of submissions that it replaces
 * @property {PendingSubmission | null} pending the submission that is under way
 * @property {string} draftUrl empty once the server refused it
 * @property {boolean} [left] the page was left while it may not have been saved
 */

const PREFIX = `label:${labelRoot.dataset.person}:`;

/** The name under which the draft on the page is kept. */
export function currentDraftName() {
  return `${PREFIX}${labelElement().dataset.task}:${hiddenField("token").value}`;
}

/** @param {string} name */
export function tokenOfDraft(name) {
  return name.split(":").at(-1);
}

export function listDrafts() {
  return Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
}

/** @param {string} name */
export function isOfCurrentTask(name) {
  return `${name}:`.startsWith(`${PREFIX}${labelElement().dataset.task}:`);
}

/**
 * @param {string} name
 * @returns {KeptDraft | null}
 */
export function readDraft(name) {
  return JSON.parse(localStorage.getItem(name) ?? "null");
}

/**
 * Throws where the browser's storage is full or forbidden.
 * @param {string} name
 * @param {KeptDraft} draft
 */
export function writeDraft(name, draft) {
  localStorage.setItem(name, JSON.stringify(draft));
}

/** @param {string} name */
export function forgetDraft(name) {
  localStorage.removeItem(name);
}

/**
 * Keep what the page has: its fields, what they began from, and the submission that is under way.
 * @param {PendingSubmission | null} [pending]
 */
export function keepCurrentDraft(pending = null) {
  const draft = {
    typedAt: Date.now(),
    fields: readFields(),
    base: hiddenField("revision").value,
    replaces: hiddenField("replaces").value,
    pending,
    draftUrl: labelElement().dataset.draft,
  };
  try {
    writeDraft(currentDraftName(), draft);
  } catch {
    showDraftState("This browser keeps nothing; drafts are on the server only.");
  }
}
