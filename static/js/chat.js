// @ts-check
// The place to write: drafts that survive, keys, a view that follows the reply until its reader scrolls away.
"use strict";

const composer = document.querySelector(".composer");
const toEnd = document.querySelector(".to-end");
const NEAR = 120;
root.classList.add("js");

// ---- following the end of the thread
let following = true;

function atEnd() {
  return window.innerHeight + window.scrollY >= root.scrollHeight - NEAR;
}

function goToEnd() {
  window.scrollTo({ top: root.scrollHeight });
  following = true;
  if (toEnd) toEnd.hidden = true;
}

window.addEventListener(
  "scroll",
  () => {
    following = atEnd();
    if (toEnd) toEnd.hidden = following || !document.querySelector(".message");
  },
  { passive: true },
);
document.addEventListener("chat:before-growth", () => {
  following = following && atEnd();
});
document.addEventListener("chat:growth", () => {
  if (following) goToEnd();
});
if (toEnd) toEnd.addEventListener("click", goToEnd);

// ---- stopping
function stopForm() {
  return document.querySelector(".stop-form");
}

function showWhatCanBeDone() {
  if (!composer) return;
  const writing = stopForm() !== null;
  composer.querySelector(".send").hidden = writing;
  composer.querySelector(".stop-writing").hidden = !writing;
}

function stopWriting() {
  const form = stopForm();
  if (form) form.requestSubmit();
}

// Escape closes the field that one is in; elsewhere it stops the reply.
function closeField(details) {
  const field = details.querySelector("textarea");
  field.value = field.defaultValue;
  localStorage.removeItem(`field:${field.id}`);
  details.open = false;
  details.querySelector("summary").focus();
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  const edit = event.target.closest?.(".edit[open]");
  if (edit) closeField(edit);
  else if (stopForm() && !document.querySelector("details.menu[open], :popover-open")) stopWriting();
});
document.addEventListener("click", (event) => {
  const cancel = event.target.closest(".edit .cancel");
  if (cancel) closeField(cancel.closest(".edit"));
});
document.addEventListener("chat:finished", showWhatCanBeDone);
document.addEventListener("htmx:afterSettle", showWhatCanBeDone);
document.addEventListener("chat:merged", showWhatCanBeDone);

// ---- writing
if (composer) {
  const field = composer.querySelector("textarea");
  field.addEventListener("keydown", (event) => {
    const sends = event.key === "Enter" && !event.shiftKey && !event.isComposing;
    if (!sends || window.matchMedia("(hover: none)").matches) return;
    event.preventDefault();
    if (field.value.trim() && !stopForm()) composer.requestSubmit();
  });
  composer.querySelector(".stop-writing").addEventListener("click", stopWriting);
}

// After an action on a message the end comes into view only where a new reply is being written.
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.detail.target.id === "thread" || event.target.id === "thread") {
    if (stopForm()) goToEnd();
  }
});
// A form that opens shows its button too, above the place to write.
function showForm(details) {
  details.querySelector("form").scrollIntoView({ block: "nearest" });
}

document.addEventListener(
  "toggle",
  (event) => {
    const details = event.target;
    if (!details.matches?.(".edit, .feedback") || !details.open) return;
    if ("restored" in details.dataset) delete details.dataset.restored;
    else details.querySelector("textarea, input[type=checkbox]").focus({ preventScroll: true });
    showForm(details);
  },
  true,
);
document.addEventListener("htmx:afterSettle", (event) => {
  const opened =
    event.target.querySelector?.(".feedback[open]") || event.detail.elt?.querySelector?.(".feedback[open]");
  if (opened) showForm(opened);
});

if (document.querySelector(".message") && !location.hash) goToEnd();
showWhatCanBeDone();
