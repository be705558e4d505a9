// @ts-check
// The chat page: keys, stopping, forms that open, and a view that follows the reply until its reader scrolls away.

import { dropArrivedDrafts, forgetField, keepMessage, restoreFields } from "./chat-drafts.js";
import { followReplies } from "./chat-stream.js";
import { closestElement, eventElement, findElement } from "./dom.js";

const NEAR_END = 120; // px
const root = document.documentElement;
/** @type {HTMLFormElement | null} */
const composer = document.querySelector(".composer");
const toEndButton = findElement(".to-end");

// ---- following the end of the thread
let isFollowing = true;

function isAtEnd() {
  return window.innerHeight + window.scrollY >= root.scrollHeight - NEAR_END;
}

function goToEnd() {
  window.scrollTo({ top: root.scrollHeight });
  isFollowing = true;
  if (toEndButton) toEndButton.hidden = true;
}

window.addEventListener(
  "scroll",
  () => {
    isFollowing = isAtEnd();
    if (toEndButton) toEndButton.hidden = isFollowing || !document.querySelector(".message");
  },
  { passive: true },
);
document.addEventListener("chat:before-growth", () => {
  isFollowing = isFollowing && isAtEnd();
});
document.addEventListener("chat:growth", () => {
  if (isFollowing) goToEnd();
});
if (toEndButton) toEndButton.addEventListener("click", goToEnd);

// ---- stopping
/** @returns {HTMLFormElement | null} */
function findStopForm() {
  return document.querySelector(".stop-form");
}

function showSendOrStop() {
  if (!composer) return;
  const isWriting = findStopForm() !== null;
  findElement(".send", composer).hidden = isWriting;
  findElement(".stop-writing", composer).hidden = !isWriting;
}

function stopWriting() {
  findStopForm()?.requestSubmit();
}

/**
 * Close the form of one message, without what was typed into it.
 * @param {Element} details
 */
function closeForm(details) {
  const field = details.querySelector("textarea");
  field.value = field.defaultValue;
  forgetField(field);
  details.removeAttribute("open");
  details.querySelector("summary").focus();
}

// Escape closes the form that the focus is in; elsewhere it stops the reply.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  const editForm = closestElement(event, ".edit[open]");
  if (editForm) closeForm(editForm);
  else if (findStopForm() && !document.querySelector("details.menu[open], :popover-open")) stopWriting();
});
document.addEventListener("click", (event) => {
  const cancelButton = closestElement(event, ".edit .cancel");
  if (cancelButton) closeForm(cancelButton.closest(".edit"));
});
document.addEventListener("chat:finished", showSendOrStop);
document.addEventListener("htmx:afterSettle", showSendOrStop);
document.addEventListener("chat:merged", showSendOrStop);

// ---- writing
if (composer) {
  const field = composer.querySelector("textarea");
  field.addEventListener("keydown", (event) => {
    const sends = event.key === "Enter" && !event.shiftKey && !event.isComposing;
    if (!sends || window.matchMedia("(hover: none)").matches) return;
    event.preventDefault();
    if (field.value.trim() && !findStopForm()) composer.requestSubmit();
  });
  composer.querySelector(".stop-writing").addEventListener("click", stopWriting);
}

// After an action on a message the end comes into view only where a new reply is being written.
document.addEventListener("htmx:afterSettle", (event) => {
  const isThread = event.detail.target.id === "thread" || eventElement(event).id === "thread";
  if (isThread && findStopForm()) goToEnd();
});

/**
 * Bring the form in it into view, with its button, above the place to write.
 * @param {Element} details
 */
function showForm(details) {
  details.querySelector("form").scrollIntoView({ block: "nearest" });
}

document.addEventListener(
  "toggle",
  (event) => {
    const details = /** @type {HTMLDetailsElement} */ (event.target);
    if (!details.matches?.(".edit, .feedback") || !details.open) return;
    if ("restored" in details.dataset) delete details.dataset.restored;
    else findElement("textarea, input[type=checkbox]", details).focus({ preventScroll: true });
    showForm(details);
  },
  true,
);
document.addEventListener("htmx:afterSettle", (event) => {
  const openForm =
    eventElement(event).querySelector?.(".feedback[open]") ?? event.detail.elt?.querySelector?.(".feedback[open]");
  if (openForm) showForm(openForm);
});

root.classList.add("js");
dropArrivedDrafts();
if (composer) keepMessage(composer);
restoreFields();
followReplies();
if (document.querySelector(".message") && !location.hash) goToEnd();
showSendOrStop();
