// @ts-check
// The lease of the task, which renews while the page is open, and what the server tells with it.

import { clearAlerts, showAlert, showDraftState, showSignedOut } from "./label-alerts.js";
import { offerVersion } from "./label-conflict.js";
import { offerGuidelines } from "./label-dialogs.js";
import { isDraftUnsaved, showAnsweredElsewhere } from "./label-drafts.js";
import { fillFields, haveSameContent, readFields } from "./label-fields.js";
import { postForm } from "./label-http.js";
import { isLocked } from "./label-lock.js";
import { announce, hiddenField, labelElement, labelForm } from "./label-page.js";
import { resendSubmission } from "./label-send.js";

/** @import { OtherVersion } from "./label-lock.js" */

let renewTimer = 0;

/** Renew the lease of the task that is shown, if one is. */
export function startRenewing() {
  clearInterval(renewTimer);
  if (labelForm()) renewTimer = setInterval(renewLease, 1000 * Number(labelElement().dataset.renewSeconds));
}

async function renewLease() {
  const element = labelElement();
  let response, answer;
  try {
    const body = { revision: hiddenField("revision").value, token: hiddenField("token").value };
    response = await postForm(element.dataset.renew, body);
    if (element !== labelElement()) return;
    if (response === null) return showSignedOut();
    if (!response.ok) return;
    answer = await response.json();
  } catch {
    return; // the next beat tries again; the draft's state says that the server is away
  }
  if (element !== labelElement()) return;
  clearAlerts("signed-out");
  showOutcome(answer.outcome);
  if (answer.draft) takeDraft(answer.draft);
  offerGuidelines(answer.guidelines);
  resendSubmission();
}

/** @param {string} outcome of the lease */
function showOutcome(outcome) {
  if (outcome === "submitted") showAnsweredElsewhere();
  else if (outcome === "held") clearAlerts("hold");
  else if (outcome === "skipped")
    showAlert("hold", "You skipped this task in another window. You can still submit an answer to it.");
  else
    showAlert(
      "hold",
      "Your hold on this task ended and someone else took it. You can still submit your answer: it is kept, and counts when a place becomes free.",
    );
}

/**
 * The draft was changed elsewhere: take it over where nothing was typed here, else have the person choose.
 * @param {Omit<OtherVersion, "where">} draft
 */
function takeDraft(draft) {
  if (isLocked() || haveSameContent(draft.content, readFields())) return;
  if (isDraftUnsaved()) return offerVersion({ ...draft, where: "server" });
  fillFields(draft.content);
  hiddenField("revision").value = draft.revision;
  showDraftState("Updated from another window or device");
  announce("The draft was updated from another window or device.");
}

function renewIfVisible() {
  if (document.visibilityState === "visible" && labelForm()) renewLease();
}

document.addEventListener("visibilitychange", renewIfVisible);
window.addEventListener("focus", renewIfVisible);
