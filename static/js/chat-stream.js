// @ts-check
// A reply as it is written, and a conversation as it changes elsewhere. What has arrived stays on the page whatever
// happens to the connection; the server sends the rest from where the page is.

import { changeThread, findThread, firstShownMessage, mergeThread } from "./chat-thread.js";
import { findElements } from "./dom.js";
import { listenToEvents } from "./event-stream.js";

const RETRY_SECONDS = 2;

/** @param {string} text */
function announce(text) {
  document.getElementById("chat-status").textContent = text;
}

// ---- one reply

/**
 * Follow the reply of one `[data-stream]` element to its end.
 * @param {HTMLElement} element
 */
function followReply(element) {
  let lastPiece = Number(element.dataset.after);
  const stateWords = element.parentElement.querySelector(".state-words");
  const end = listenToEvents({
    address: () => `${element.dataset.stream}?after=${lastPiece}`,
    on: {
      piece(event) {
        if (!element.isConnected) return end();
        if (Number(event.lastEventId) <= lastPiece) return;
        lastPiece = Number(event.lastEventId);
        stateWords.textContent = "Writing";
        changeThread(() => element.append(JSON.parse(event.data)));
      },
      done() {
        end();
        showFinishedMessage(element);
      },
    },
    onConnection(lost) {
      if (!element.isConnected) return end();
      if (lost) stateWords.textContent = "Reconnecting…";
      else stateWords.textContent = element.textContent ? "Writing" : "Thinking";
    },
    silence: Number(element.dataset.silence),
  });
}

/**
 * Put the finished message, rendered by the server, in the place of the raw words that were streamed.
 * @param {HTMLElement} element
 */
async function showFinishedMessage(element) {
  if (!element.isConnected) return;
  let response;
  try {
    response = await fetch(element.dataset.message, { headers: { "HX-Request": "true" } });
  } catch {
    setTimeout(() => showFinishedMessage(element), RETRY_SECONDS * 1000);
    return;
  }
  if (!element.isConnected) return;
  if (!response.ok) {
    location.reload();
    return;
  }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const message = page.querySelector(".message");
  changeThread(() => {
    element.closest(".message").replaceWith(message);
    htmx.process(message);
    announce(`The reply: ${message.querySelector(".words, .notice")?.textContent.trim() ?? ""}`);
  });
  document.dispatchEvent(new CustomEvent("chat:finished"));
  watchConversation();
}

/** Follow each reply that is being written and not followed yet; without any, watch the conversation. */
export function followReplies() {
  for (const element of findElements("[data-stream]:not([data-followed])")) {
    element.dataset.followed = "";
    announce("The reply is being written.");
    followReply(element);
  }
  watchConversation();
}

// ---- the conversation elsewhere
/** @type {(() => void) | null} */
let stopWatching = null;

// Listen for changes while the page is in sight and no reply is being followed, so that a tab holds one connection.
function watchConversation() {
  const thread = findThread();
  const isWanted = thread?.dataset.news && !document.hidden && !document.querySelector("[data-stream]");
  if (!isWanted) {
    if (stopWatching) stopWatching();
    stopWatching = null;
  } else if (!stopWatching) {
    stopWatching = listenToEvents({
      address: () => `${findThread().dataset.news}?version=${findThread().dataset.version}`,
      on: {
        changed(event) {
          if (JSON.parse(event.data) !== findThread().dataset.version) refreshThread();
        },
      },
      silence: Number(thread.dataset.silence),
    });
  }
}

async function refreshThread() {
  const headers = { "HX-Request": "true", "X-First-Message": firstShownMessage() };
  let response;
  try {
    response = await fetch(location.pathname, { headers });
  } catch {
    return; // the next sign of life asks again
  }
  if (!response.ok) {
    location.reload();
    return;
  }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const incoming = page.getElementById("thread");
  if (!incoming) return;
  const thread = findThread();
  changeThread(() => {
    mergeThread(thread, incoming);
    for (const name of ["version", "sent"]) thread.dataset[name] = incoming.dataset[name];
  });
  document.dispatchEvent(new CustomEvent("chat:merged"));
  followReplies();
}

document.addEventListener("visibilitychange", watchConversation);
document.addEventListener("htmx:afterSettle", followReplies);
document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-First-Message"] = firstShownMessage();
});
// A reply is being written elsewhere, or something else stands in the way: show the conversation as it is.
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 409 && findThread().dataset.news) refreshThread();
});
