// @ts-check
// Drafts and submissions of other tasks that never reached the server, e.g. because the browser was closed meanwhile.

import { writeDraft, forgetDraft, isOfCurrentTask, listDrafts, readDraft, tokenOfDraft } from "./label-draft-store.js";
import { tryPostForm } from "./label-http.js";
import { labelForm } from "./label-page.js";
import { showToast } from "./toast.js";

/** @import { KeptDraft } from "./label-draft-store.js" */

const MAX_AGE = 30 * 24 * 3600_000; // ms after which what is kept here is let go

export async function sendBacklog() {
  for (const name of listDrafts()) {
    const kept = readDraft(name);
    if (!kept) continue; // another window has sent it meanwhile
    if (Date.now() - kept.typedAt > MAX_AGE) forgetDraft(name);
    else if (labelForm() && isOfCurrentTask(name)) continue;
    else if (kept.pending) await sendKeptSubmission(name, kept);
    else if (kept.draftUrl) await sendKeptDraft(name, kept);
  }
}

/** @param {Response | null} response */
function isRefused(response) {
  return Boolean(response) && !response.ok && response.status < 500 && response.status !== 429;
}

/**
 * @param {string} name
 * @param {KeptDraft} kept
 */
async function sendKeptSubmission(name, kept) {
  const response = await tryPostForm(kept.pending.url, kept.pending.body);
  if (response?.ok) {
    forgetDraft(name);
    showToast("An answer that was waiting here has been sent.");
  } else if (isRefused(response)) {
    const { message } = await response.json().catch(() => ({ message: "The server refused it." }));
    writeDraft(name, { ...kept, pending: null });
    showToast(`An answer that was waiting here was not taken: ${message}`, { error: true });
  }
}

/**
 * @param {string} name
 * @param {KeptDraft} kept
 */
async function sendKeptDraft(name, kept) {
  const body = new URLSearchParams({
    revision: kept.base ?? "",
    token: tokenOfDraft(name),
    typed_at: String(kept.typedAt),
  });
  for (const [field, value] of Object.entries(kept.fields)) {
    for (const item of [value].flat()) body.append(field, item);
  }
  const response = await tryPostForm(kept.draftUrl, body);
  if (response?.ok) forgetDraft(name);
  else if (isRefused(response) && readDraft(name)) writeDraft(name, { ...kept, draftUrl: "" }); // offered when its task opens
}
