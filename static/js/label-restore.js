// @ts-check
// What this browser kept of a task: restored where it began from the server's draft, offered where it did not.

import { showDraftState } from "./label-alerts.js";
import { offerVersion } from "./label-conflict.js";
import {
  currentDraftName,
  forgetDraft,
  isOfCurrentTask,
  listDrafts,
  readDraft,
  tokenOfDraft,
} from "./label-draft-store.js";
import { markTyped, markTypedAt } from "./label-drafts.js";
import { fillFields, haveSameContent, readFields } from "./label-fields.js";
import { hiddenField } from "./label-page.js";
import { adoptSubmission } from "./label-send.js";

/** @import { KeptDraft } from "./label-draft-store.js" */
/** @import { OtherVersion } from "./label-lock.js" */

/** Fill the form of the task that is shown with what this browser kept of it. */
export function restoreDraft() {
  const base = hiddenField("revision").value;
  /** @type {OtherVersion[]} */
  const others = [];
  let isRestored = false;
  for (const name of listDrafts().filter(isOfCurrentTask)) {
    const kept = readDraft(name);
    if (kept.pending) {
      restoreSubmission(name, kept);
      isRestored = true;
    } else if (haveSameContent(kept.fields, readFields())) {
      forgetDraft(name);
    } else if (!isRestored && (kept.base ?? null) === base) {
      restoreText(name, kept);
      isRestored = true;
    } else {
      others.push({ where: "browser", name, content: kept.fields, updated_at: kept.typedAt });
    }
  }
  for (const other of others) offerVersion(other);
}

/**
 * @param {string} name
 * @param {KeptDraft} kept
 */
function restoreSubmission(name, kept) {
  hiddenField("token").value = kept.pending.token;
  hiddenField("replaces").value = kept.replaces ?? "";
  fillFields(kept.fields);
  markTypedAt(kept.typedAt);
  if (name !== currentDraftName()) forgetDraft(name);
  adoptSubmission(kept.pending);
}

/**
 * @param {string} name
 * @param {KeptDraft} kept
 */
function restoreText(name, kept) {
  if (kept.left) hiddenField("token").value = tokenOfDraft(name); // its last save may still be under way
  fillFields(kept.fields);
  hiddenField("replaces").value = kept.replaces ?? "";
  forgetDraft(name);
  markTyped();
  showDraftState("Restored what you typed");
}
