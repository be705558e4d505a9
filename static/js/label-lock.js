// @ts-check
// What is under way on the labeling page. While anything is, the form is locked.

/**
 * A submission that the server has not confirmed.
 * @typedef {{ url: string, token: string, body: [string, string][] }} PendingSubmission
 */

/**
 * Another text of the same draft: from the server, with its revision, or kept in this browser under a name.
 * @typedef {object} OtherVersion
 * @property {"server" | "browser"} where
 * @property {Record<string, string | string[]>} content
 * @property {string | number} updated_at
 * @property {string} [revision]
 * @property {string} [name]
 */

/** Changed by label-send.js alone. */
export const underWay = {
  isSending: false, // a submission is on its way
  /** @type {PendingSubmission | null} */
  pending: null,
  /** @type {HTMLElement | null} */
  action: null, // the form of a skip or an undo
};

/**
 * Versions of the draft that wait for the person's choice, the first of which is shown. Changed by label-conflict.js alone.
 * @type {OtherVersion[]}
 */
export const otherVersions = [];

export function isSkipping() {
  return underWay.action?.id === "label-skip";
}

export function isSubmitting() {
  return underWay.isSending || underWay.pending !== null || isSkipping();
}

export function isChoosingVersion() {
  return otherVersions.length > 0;
}

export function isLocked() {
  return isSubmitting() || isChoosingVersion();
}
