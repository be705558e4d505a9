// @ts-check
// What is typed and not sent yet: kept in the browser as it is typed, and dropped only when the server has it.

import { eventElement } from "./dom.js";
import { showToast } from "./toast.js";
import { createToken } from "./token.js";

// ---- the message
// An attempt is a text that was sent under a token and whose arrival is not certain. The same text goes out again under
// the same token, so it counts once; another text gets a token of its own, so it is never taken for the first.

/**
 * @param {string} key the conversation, or the project where there is none yet
 * @returns {{ text?: string, token?: string }}
 */
function readAttempt(key) {
  try {
    return JSON.parse(localStorage.getItem(`attempt:${key}`)) ?? {};
  } catch {
    return {};
  }
}

/**
 * @param {string} key
 * @param {string} text
 */
function tokenFor(key, text) {
  const attempt = readAttempt(key);
  const token = attempt.text === text ? attempt.token : createToken();
  localStorage.setItem(`attempt:${key}`, JSON.stringify({ text, token }));
  return token;
}

/** @param {string} key */
function dropAttempt(key) {
  const { text } = readAttempt(key);
  localStorage.removeItem(`attempt:${key}`);
  if (text !== undefined && localStorage.getItem(`draft:${key}`) === text) localStorage.removeItem(`draft:${key}`);
}

/** Drop the drafts that the page shows to have arrived: a conversation begins with its id as token. */
export function dropArrivedDrafts() {
  const { conversation, sent } = document.getElementById("thread").dataset;
  const arrivedTokens = [conversation, sent].filter(Boolean);
  for (const name of Object.keys(localStorage)) {
    const key = name.slice("attempt:".length);
    if (name.startsWith("attempt:") && arrivedTokens.includes(readAttempt(key).token)) dropAttempt(key);
  }
}

/**
 * Restore what was typed into the composer, and keep what is typed from now on.
 * @param {HTMLFormElement} composer
 */
export function keepMessage(composer) {
  const field = composer.querySelector("textarea");
  const key = composer.dataset.draft;
  field.value = field.value || localStorage.getItem(`draft:${key}`) || "";
  field.addEventListener("input", () => {
    if (field.value) localStorage.setItem(`draft:${key}`, field.value);
    else localStorage.removeItem(`draft:${key}`);
  });
  composer.addEventListener("submit", () => {
    localStorage.setItem(`draft:${key}`, field.value);
    if (window.htmx && composer.hasAttribute("hx-post")) return;
    /** @type {HTMLInputElement} */
    const tokenField = composer.querySelector("input[name=token]");
    tokenField.value = tokenFor(key, field.value);
  });
  composer.addEventListener("htmx:configRequest", (event) => {
    event.detail.parameters.set("token", tokenFor(key, field.value));
  });
  composer.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.elt !== composer || !isAccepted(event.detail.xhr)) return;
    clearMessage();
    field.focus();
  });
  // The answer was lost, and the page has learned otherwise that the message arrived.
  document.addEventListener("chat:merged", () => {
    const { token } = readAttempt(key);
    if (token !== undefined && token === document.getElementById("thread").dataset.sent) clearMessage();
  });

  function clearMessage() {
    const sentText = readAttempt(key).text ?? "";
    dropAttempt(key);
    if (field.value.startsWith(sentText)) field.value = field.value.slice(sentText.length); // what was typed since stays
    if (field.value) localStorage.setItem(`draft:${key}`, field.value);
  }
}

// ---- edits, better answers, comments

/** Put back what was typed into the fields of the messages on the page, and open the forms that they are in. */
export function restoreFields() {
  /** @type {NodeListOf<HTMLTextAreaElement>} */
  const fields = document.querySelectorAll(".message textarea[id]");
  for (const field of fields) {
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

/** @param {HTMLTextAreaElement} field */
export function forgetField(field) {
  localStorage.removeItem(`field:${field.id}`);
}

document.addEventListener("input", (event) => {
  if (!eventElement(event).matches(".message textarea[id]")) return;
  const field = /** @type {HTMLTextAreaElement} */ (event.target);
  if (field.value === field.defaultValue) forgetField(field);
  else localStorage.setItem(`field:${field.id}`, field.value);
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const form = event.detail.requestConfig?.elt;
  if (!form?.closest(".message") || !isAccepted(event.detail.xhr)) return;
  for (const field of form.querySelectorAll("textarea")) if (field.id) forgetField(field);
});
document.addEventListener("htmx:afterSettle", restoreFields);
document.addEventListener("chat:merged", restoreFields);

// ---- an answer that is none

/**
 * Whether the server did what it was asked for: a page that asks to sign in comes with status 200 too.
 * @param {XMLHttpRequest} xhr
 */
function isAccepted(xhr) {
  return xhr.status >= 200 && xhr.status < 300 && /id="(thread|message-\d+)"|class="earlier"/.test(xhr.responseText);
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  if (xhr.status >= 300 || isAccepted(xhr)) return;
  event.detail.shouldSwap = false;
  showToast("You have been signed out. Sign in again in another tab, then send again. Your text is kept.", {
    error: true,
  });
});
