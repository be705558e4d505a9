// @ts-check
// What is typed and not sent yet: kept in the browser as it is typed, and dropped only when the server has it.
"use strict";

const composerForm = document.querySelector(".composer");

function stored(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return localStorage.getItem(key);
  }
}

// A version 4 UUID; crypto.randomUUID is missing on pages without TLS.
function newToken() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

// ---- the message
// An attempt is a text that was sent under a token and whose arrival is not certain. The same text goes out again under
// the same token, so it counts once; another text gets a token of its own, so it is never taken for the first.
function tokenFor(key, text) {
  const attempt = stored(`attempt:${key}`);
  const token = attempt && attempt.text === text ? attempt.token : newToken();
  localStorage.setItem(`attempt:${key}`, JSON.stringify({ text, token }));
  return token;
}

function arrived(key) {
  const attempt = stored(`attempt:${key}`);
  localStorage.removeItem(`attempt:${key}`);
  if (attempt && localStorage.getItem(`draft:${key}`) === attempt.text) localStorage.removeItem(`draft:${key}`);
}

// The page shows which messages the server has: the conversation began with its id as token.
function dropWhatArrived() {
  const thread = document.getElementById("thread");
  const here = [thread.dataset.conversation, thread.dataset.sent].filter(Boolean);
  for (const name of Object.keys(localStorage)) {
    if (name.startsWith("attempt:") && here.includes((stored(name) || {}).token))
      arrived(name.slice("attempt:".length));
  }
}

function keepMessage(composer) {
  const field = composer.querySelector("textarea");
  const key = composer.dataset.draft;
  field.value = field.value || localStorage.getItem(`draft:${key}`) || "";
  field.addEventListener("input", () => {
    if (field.value) localStorage.setItem(`draft:${key}`, field.value);
    else localStorage.removeItem(`draft:${key}`);
  });
  composer.addEventListener("submit", () => {
    localStorage.setItem(`draft:${key}`, field.value);
    if (!window.htmx || !composer.hasAttribute("hx-post")) composer.elements.token.value = tokenFor(key, field.value);
  });
  composer.addEventListener("htmx:configRequest", (event) => {
    event.detail.parameters.set("token", tokenFor(key, field.value));
  });
  composer.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.elt !== composer || !accepted(event.detail)) return;
    clear();
    field.focus();
  });
  // The answer was lost, and the page has learned otherwise that the message arrived.
  document.addEventListener("chat:merged", () => {
    const attempt = stored(`attempt:${key}`);
    if (attempt && attempt.token === document.getElementById("thread").dataset.sent) clear();
  });

  function clear() {
    const sent = (stored(`attempt:${key}`) || {}).text || "";
    arrived(key);
    if (field.value.startsWith(sent)) field.value = field.value.slice(sent.length); // what was typed meanwhile stays
    if (field.value) localStorage.setItem(`draft:${key}`, field.value);
  }
}

// ---- edits, better answers, comments
function fieldsOf(root) {
  return [...root.querySelectorAll(".message textarea[id]")];
}

function restoreFields() {
  for (const field of fieldsOf(document)) {
    const text = localStorage.getItem(`field:${field.id}`);
    if (text === null || text === field.value) continue;
    field.value = text;
    const details = field.closest("details");
    if (details) {
      details.dataset.restored = "";
      details.open = true;
    }
  }
}

function forgetFields(root) {
  for (const field of root.querySelectorAll("textarea[id]")) localStorage.removeItem(`field:${field.id}`);
}

document.addEventListener("input", (event) => {
  const field = event.target;
  if (!field.matches(".message textarea[id]")) return;
  if (field.value === field.defaultValue) localStorage.removeItem(`field:${field.id}`);
  else localStorage.setItem(`field:${field.id}`, field.value);
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const { elt } = event.detail.requestConfig || {};
  if (elt && elt.closest(".message") && accepted(event.detail)) forgetFields(elt);
});
document.addEventListener("htmx:afterSettle", restoreFields);
document.addEventListener("chat:merged", restoreFields);

// ---- an answer that is none
// Whether the server did it: a page that asks to sign in comes with status 200 too.
function accepted(detail) {
  const { xhr } = detail;
  return xhr.status >= 200 && xhr.status < 300 && /id="(thread|message-\d+)"|class="earlier"/.test(xhr.responseText);
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  if (xhr.status >= 300 || accepted(event.detail)) return;
  event.detail.shouldSwap = false;
  toast("You have been signed out. Sign in again in another tab, then send again. Your text is kept.", { error: true });
});

dropWhatArrived();
if (composerForm) keepMessage(composerForm);
restoreFields();
