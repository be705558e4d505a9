// A reply as it is written. What has arrived stays on the page whatever happens to the connection; the server sends the
// rest from where we are.
"use strict";

const RETRY_SECONDS = 2;
const announcer = document.getElementById("chat-status");

function say(words) {
  announcer.textContent = words;
}

// Follow the reply of one `[data-stream]` element to its end.
function follow(element) {
  let last = Number(element.dataset.after);
  let source = null;
  const words = element.parentElement.querySelector(".state-words");

  function open() {
    if (!element.isConnected) return;
    source = new EventSource(`${element.dataset.stream}?after=${last}`);
    source.addEventListener("piece", (event) => {
      last = Number(event.lastEventId);
      words.textContent = "Writing";
      document.dispatchEvent(new CustomEvent("chat:before-growth"));
      element.append(JSON.parse(event.data));
      document.dispatchEvent(new CustomEvent("chat:growth"));
    });
    source.addEventListener("done", () => {
      source.close();
      finish();
    });
    source.addEventListener("error", () => {
      source.close();
      words.textContent = "The connection is lost; trying again";
      setTimeout(open, RETRY_SECONDS * 1000);
    });
    source.addEventListener("open", () => { words.textContent = element.textContent ? "Writing" : "Thinking"; });
  }

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
  }

  open();
}

function followAll() {
  for (const element of document.querySelectorAll("[data-stream]:not([data-followed])")) {
    element.dataset.followed = "";
    say("The reply is being written.");
    follow(element);
  }
}

document.addEventListener("htmx:afterSettle", followAll);
followAll();
