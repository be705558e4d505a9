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

window.addEventListener("scroll", () => {
  following = atEnd();
  if (toEnd) toEnd.hidden = following || !document.querySelector(".message");
}, { passive: true });
document.addEventListener("chat:before-growth", () => { following = following && atEnd(); });
document.addEventListener("chat:growth", () => { if (following) goToEnd(); });
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

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && stopForm() && !document.querySelector("details.menu[open], :popover-open")) stopWriting();
});
document.addEventListener("chat:finished", showWhatCanBeDone);
document.addEventListener("htmx:afterSettle", showWhatCanBeDone);

// ---- writing
if (composer) {
  const field = composer.querySelector("textarea");
  const draft = `draft:${composer.dataset.draft}`;
  field.value = field.value || localStorage.getItem(draft) || "";
  field.addEventListener("input", () => {
    if (field.value) localStorage.setItem(draft, field.value);
    else localStorage.removeItem(draft);
  });
  field.addEventListener("keydown", (event) => {
    const sends = event.key === "Enter" && !event.shiftKey && !event.isComposing;
    if (!sends || window.matchMedia("(hover: none)").matches) return;
    event.preventDefault();
    if (field.value.trim() && !stopForm()) composer.requestSubmit();
  });
  composer.querySelector(".stop-writing").addEventListener("click", stopWriting);

  // The draft goes only once the server has the message: after the answer here, or on the page that a new chat leads to.
  composer.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.elt !== composer || !event.detail.successful) return;
    field.value = "";
    localStorage.removeItem(draft);
    field.focus();
  });
  composer.addEventListener("submit", () => {
    if (!composer.hasAttribute("hx-post")) sessionStorage.setItem("sent-draft", draft);
  });
  const sent = sessionStorage.getItem("sent-draft");
  if (sent && sent !== draft) {
    localStorage.removeItem(sent);
    sessionStorage.removeItem("sent-draft");
  }
}

// After an action on a message the end comes into view only where a new reply is being written.
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.detail.target.id === "thread" || event.target.id === "thread") {
    if (stopForm()) goToEnd();
  }
});
document.addEventListener("toggle", (event) => {
  if (event.target.matches?.(".edit, .feedback") && event.target.open) event.target.querySelector("textarea, input[type=checkbox]").focus();
}, true);

if (document.querySelector(".message") && !location.hash) goToEnd();
showWhatCanBeDone();
