// The labelling page: focus, keys, windows, previews. `Label` is what its three scripts share.
"use strict";

const Label = {
  root: document.getElementById("label-root"),
  listeners: [],
  onReady(run) { this.listeners.push(run); },
  get element() { return document.getElementById("label"); },
  get form() { return document.getElementById("label-form"); },
  announce(text) { document.getElementById("label-live").textContent = text; },

  // Single keys work where no text is being typed, no window is open and nobody turned them off.
  keysAllowed(event) {
    const at = event.target;
    const typing = at.matches("textarea, select, input:not([type=radio], [type=checkbox])");
    const off = localStorage.getItem("label-keys-off") === "1";
    return !typing && !off && !event.ctrlKey && !event.metaKey && !event.altKey && !document.querySelector("dialog[open]");
  },
};

(() => {
  const COOKED = 400; // ms without typing before the preview is made anew

  function ready(first) {
    const element = Label.element;
    for (const run of Label.listeners) run(element);
    const form = Label.form;
    if (form) form.noValidate = true; // what is missing is said in the page's own words
    for (const box of element.querySelectorAll("textarea.grows")) grow(box);
    for (const count of element.querySelectorAll("[data-count-of]")) recount(document.getElementById(count.dataset.countOf));
    const keysOff = document.getElementById("label-keys-off");
    keysOff.checked = localStorage.getItem("label-keys-off") === "1";
    keysOff.addEventListener("change", () => localStorage.setItem("label-keys-off", keysOff.checked ? "1" : "0"));
    const title = document.getElementById("label-title");
    const start = element.querySelector("textarea[data-first]") ?? element.querySelector(".reply") ?? title;
    start.focus({ preventScroll: true });
    if (!first) {
      window.scrollTo({ top: 0 });
      Label.announce(`${document.getElementById("label-undo") ? "Saved. " : ""}${title.textContent}.`);
    }
  }

  function grow(box) {
    if (CSS.supports("field-sizing", "content")) return;
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + 2}px`;
  }

  function recount(box) {
    const count = document.querySelector(`[data-count-of="${box.id}"]`);
    const words = box.value.trim().split(/\s+/).filter(Boolean).length;
    if (count) count.textContent = words === 1 ? "1 word." : `${words} words.`;
  }

  let waiting;
  function preview(details) {
    clearTimeout(waiting);
    if (!details?.open) return;
    waiting = setTimeout(async () => {
      const text = document.getElementById(details.dataset.previewOf).value;
      const shown = details.querySelector(".prose");
      const response = await fetch(details.dataset.previewUrl, {
        method: "POST", body: new URLSearchParams({ text }), headers: { "X-CSRFToken": Label.csrf() }, redirect: "manual",
      }).catch(() => null);
      if (response?.ok) shown.innerHTML = await response.text(); // cleaned by the server
      else shown.textContent = "The preview needs the server, which does not answer. Your text is safe.";
    }, COOKED);
  }

  function openDialog(id) { document.getElementById(id)?.showModal(); }

  function openSkip() {
    const skip = Label.element.querySelector("details.skip");
    if (!skip) return;
    skip.open = true;
    skip.querySelector("button").focus();
  }

  function key(event) {
    const form = Label.form;
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter" && form) {
      event.preventDefault();
      form.requestSubmit();
    } else if (event.altKey && event.code === "KeyP") {
      const details = Label.element.querySelector("details.preview");
      if (!details) return;
      event.preventDefault();
      details.open = !details.open;
    } else if (event.key === "Escape" && event.target.matches("textarea") && !document.querySelector("dialog[open]")) {
      (event.target.closest(".reply") ?? document.getElementById("label-title")).focus({ preventScroll: true });
    } else if (Label.keysAllowed(event)) {
      single(event, form);
    }
  }

  function single(event, form) {
    const choice = form?.querySelector(`input[data-key="${CSS.escape(event.key)}"]`);
    const does = {
      "?": () => openDialog("label-help"),
      g: () => openDialog("label-guidelines"),
      s: openSkip,
      u: () => document.getElementById("label-undo")?.requestSubmit(),
      w: () => document.getElementById("id_reason")?.focus(),
    }[event.key];
    if (choice) {
      choice.click();
      choice.focus();
    } else if (does) {
      does();
    } else if (event.key === "Enter" && form && !event.target.matches("button, a, summary, input[type=checkbox]")) {
      form.requestSubmit();
    } else return;
    event.preventDefault();
  }

  Label.csrf = () => document.cookie.match(/(?:^|; )csrftoken=([^;]*)/)?.[1] ?? "";

  document.documentElement.classList.add("has-script");
  document.addEventListener("keydown", key);
  Label.root.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) openDialog(opener.dataset.opens);
  });
  Label.root.addEventListener("input", (event) => {
    if (!event.target.matches("textarea")) return;
    grow(event.target);
    recount(event.target);
    preview(document.querySelector(`[data-preview-of="${event.target.id}"]`));
  });
  Label.root.addEventListener("toggle", (event) => preview(event.target.closest("details.preview")), true);
  document.addEventListener("htmx:load", (event) => { if (event.detail.elt.id === "label") ready(false); });
  document.addEventListener("DOMContentLoaded", () => ready(true));
})();
