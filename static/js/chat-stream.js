// @ts-check
// A reply as it is written, and a conversation as it changes elsewhere. What has arrived stays on the page whatever
// happens to the connection; the server sends the rest from where the page is.
"use strict";

const RETRY_SECONDS = 2;
const announcer = document.getElementById("chat-status");

function say(words) {
  announcer.textContent = words;
}

function thread() {
  return document.getElementById("thread");
}

// An EventSource that notices when it hears nothing: the server sends at least a ping every ten seconds.
// `address()` says where to go on; `on` maps events to what they do; `state(lost)` shows whether the line is up.
function listen(address, on, state, silence) {
  let source = null;
  let timer = null;
  let ended = false;

  function heard() {
    clearTimeout(timer);
    timer = setTimeout(lost, silence * 1000);
  }

  function lost() {
    if (ended) return;
    source.close();
    clearTimeout(timer);
    state(true);
    timer = setTimeout(open, RETRY_SECONDS * 1000);
  }

  function open() {
    if (ended) return;
    clearTimeout(timer);
    if (source) source.close();
    source = new EventSource(address());
    heard();
    source.addEventListener("open", () => {
      heard();
      state(false);
    });
    source.addEventListener("ping", heard);
    source.addEventListener("error", lost);
    source.addEventListener("gone", () => {
      end();
      location.reload();
    });
    for (const [name, act] of Object.entries(on)) {
      source.addEventListener(name, (event) => {
        heard();
        if (!ended) act(event);
      });
    }
  }

  function end() {
    ended = true;
    clearTimeout(timer);
    if (source) source.close();
    window.removeEventListener("online", open);
  }

  window.addEventListener("online", open);
  open();
  return end;
}

// ---- one reply
// Follow the reply of one `[data-stream]` element to its end.
function follow(element) {
  let last = Number(element.dataset.after);
  const words = element.parentElement.querySelector(".state-words");
  const end = listen(
    () => `${element.dataset.stream}?after=${last}`,
    {
      piece(event) {
        if (!element.isConnected) return end();
        if (Number(event.lastEventId) <= last) return;
        last = Number(event.lastEventId);
        words.textContent = "Writing";
        document.dispatchEvent(new CustomEvent("chat:before-growth"));
        element.append(JSON.parse(event.data));
        document.dispatchEvent(new CustomEvent("chat:growth"));
      },
      done() {
        end();
        finish();
      },
    },
    (lost) => {
      if (!element.isConnected) return end();
      if (lost) words.textContent = "Reconnecting…";
      else words.textContent = element.textContent ? "Writing" : "Thinking";
    },
    Number(element.dataset.silence),
  );
  element.addEventListener("chat:leave", end);

  // The stream has ended: put the finished message, rendered by the server, in the place of the raw words.
  async function finish() {
    if (!element.isConnected) return;
    let answer = null;
    try {
      answer = await fetch(element.dataset.message, { headers: { "HX-Request": "true" } });
    } catch {
      setTimeout(finish, RETRY_SECONDS * 1000);
      return;
    }
    if (!element.isConnected) return;
    if (!answer.ok) {
      location.reload();
      return;
    }
    const place = element.closest(".message");
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector(".message");
    document.dispatchEvent(new CustomEvent("chat:before-growth"));
    place.replaceWith(fresh);
    htmx.process(fresh);
    const said = fresh.querySelector(".words, .notice");
    say(`The reply: ${said ? said.textContent.trim() : ""}`);
    document.dispatchEvent(new CustomEvent("chat:growth"));
    document.dispatchEvent(new CustomEvent("chat:finished"));
    watch();
  }
}

function followAll() {
  for (const element of document.querySelectorAll("[data-stream]:not([data-followed])")) {
    element.dataset.followed = "";
    say("The reply is being written.");
    follow(element);
  }
  watch();
}

// ---- the conversation elsewhere
let stopWatching = null;

// Listen for changes while the page is in sight and no reply is being followed, so that a tab holds one connection.
function watch() {
  const element = thread();
  const wanted = element && element.dataset.news && !document.hidden && !document.querySelector("[data-stream]");
  if (!wanted) {
    if (stopWatching) stopWatching();
    stopWatching = null;
  } else if (!stopWatching) {
    stopWatching = listen(
      () => `${thread().dataset.news}?version=${thread().dataset.version}`,
      {
        changed(event) {
          if (JSON.parse(event.data) !== thread().dataset.version) refreshThread();
        },
      },
      () => {},
      Number(element.dataset.silence),
    );
  }
}

function firstShown() {
  const first = document.querySelector("#thread .message");
  return first ? first.id.replace("message-", "") : "";
}

// Take over what the server shows now. Messages that are the same stay as they are, with what is being typed in them.
async function refreshThread() {
  const headers = { "HX-Request": "true", "X-First-Message": firstShown() };
  let answer = null;
  try {
    answer = await fetch(location.pathname, { headers });
  } catch {
    return; // the next sign of life asks again
  }
  if (!answer.ok) {
    location.reload();
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const incoming = page.getElementById("thread");
  if (!incoming) return;
  document.dispatchEvent(new CustomEvent("chat:before-growth"));
  merge(thread(), incoming);
  for (const name of ["version", "sent"]) thread().dataset[name] = incoming.dataset[name];
  document.dispatchEvent(new CustomEvent("chat:growth"));
  document.dispatchEvent(new CustomEvent("chat:merged"));
  followAll();
}

function merge(current, incoming) {
  let place = current.firstElementChild;
  function dropUntil(element) {
    while (place && place !== element) {
      const next = place.nextElementSibling;
      place.remove();
      place = next;
    }
  }
  for (const fresh of [...incoming.children]) {
    const old = fresh.id ? document.getElementById(fresh.id) : null;
    if (old && old.parentElement === current && old.dataset.key === fresh.dataset.key) {
      dropUntil(old);
      place = old.nextElementSibling;
    } else {
      current.insertBefore(fresh, place);
      htmx.process(fresh);
    }
  }
  dropUntil(null);
}

document.addEventListener("visibilitychange", watch);
document.addEventListener("htmx:afterSettle", followAll);
document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-First-Message"] = firstShown();
});
// A reply is being written elsewhere, or something else stands in the way: show the conversation as it is.
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 409 && thread().dataset.news) refreshThread();
});
followAll();
