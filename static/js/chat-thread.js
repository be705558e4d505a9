// @ts-check
// The conversation on the page, and what the server shows of it now.

/** @returns {HTMLElement | null} */
export function findThread() {
  return document.getElementById("thread");
}

/** The id of the first message on the page, which the server starts from. */
export function firstShownMessage() {
  const first = document.querySelector("#thread .message");
  return first ? first.id.replace("message-", "") : "";
}

/**
 * Do what makes the thread longer or shorter, so that chat.js keeps its end in view.
 * @param {() => void} change
 */
export function changeThread(change) {
  document.dispatchEvent(new CustomEvent("chat:before-growth"));
  change();
  document.dispatchEvent(new CustomEvent("chat:growth"));
}

/**
 * Take over what the server shows. Messages that are the same stay as they are, with what is being typed in them.
 * @param {HTMLElement} current
 * @param {HTMLElement} incoming
 */
export function mergeThread(current, incoming) {
  let place = current.firstElementChild;

  /** @param {Element | null} element */
  function dropUntil(element) {
    while (place && place !== element) {
      const next = place.nextElementSibling;
      place.remove();
      place = next;
    }
  }

  for (const fresh of /** @type {HTMLElement[]} */ ([...incoming.children])) {
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
