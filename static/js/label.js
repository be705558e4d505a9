// @ts-check
// The labeling page: focus, keys, windows, previews. `Label` is what its scripts share.
"use strict";

const Label = {
  root: document.getElementById("label-root"),
  listeners: [],
  onReady(run) {
    this.listeners.push(run);
  },
  get element() {
    return document.getElementById("label");
  },
  get form() {
    return document.getElementById("label-form");
  },
  announce(text) {
    document.getElementById("label-live").textContent = text;
  },
  locked() {
    return this.sending() || this.choosing();
  },

  // Single keys work where no text is being typed, no window is open, nothing is being sent and nobody turned them off.
  keysAllowed(event) {
    return !Label.locked() && Label.isSingleKey(event);
  },
  isSingleKey(event) {
    const at = event.target;
    const typing = at.matches("textarea, select, input:not([type=radio], [type=checkbox])");
    const off = localStorage.getItem("label-keys-off") === "1";
    return (
      !typing && !off && !event.ctrlKey && !event.metaKey && !event.altKey && !document.querySelector("dialog[open]")
    );
  },

  // The key as it is labeled on a Latin keyboard. Where the layout types other letters, its place counts.
  keyOf(event) {
    const isForeign = event.key.length === 1 && event.key > "\u007f";
    const letter = isForeign ? event.code.match(/^Key([A-Z])$/)?.[1] : null;
    return letter ? letter.toLowerCase() : event.key.length === 1 ? event.key.toLowerCase() : event.key;
  },
};

(() => {
  const COOKED = 400; // ms without typing before the preview is made anew

  function ready(first) {
    const element = Label.element;
    for (const run of Label.listeners) run(element);
    const form = Label.form;
    if (form) form.noValidate = true; // what is missing is said in the page's own words
    Label.refresh();
    showPlainButtons();
    const question = element.querySelector(".label-prompt");
    if (question?.querySelector(".turn")) question.scrollTop = question.scrollHeight; // what to answer is the last turn
    const keysOff = document.getElementById("label-keys-off");
    keysOff.checked = localStorage.getItem("label-keys-off") === "1";
    keysOff.addEventListener("change", () => localStorage.setItem("label-keys-off", keysOff.checked ? "1" : "0"));
    const title = document.getElementById("label-title");
    const start = element.querySelector("textarea[data-first]") ?? element.querySelector(".reply") ?? title;
    start.focus({ preventScroll: true });
    if (start.matches("textarea")) start.setSelectionRange(start.value.length, start.value.length);
    if (!first) {
      window.scrollTo({ top: 0 });
      const done = element.querySelector(".label-saved span, span.label-saved")?.textContent ?? "";
      Label.announce(`${done} ${title.textContent}.`.trim());
      document.body.dispatchEvent(new Event("labeled")); // the counts of what is left follow
    }
  }

  // After the fields were filled in by a script.
  Label.refresh = () => {
    for (const box of Label.element.querySelectorAll("textarea.grows")) grow(box);
    for (const count of Label.element.querySelectorAll("[data-count-of]"))
      recount(document.getElementById(count.dataset.countOf));
    Label.redrawRanks();
  };

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
        method: "POST",
        body: new URLSearchParams({ text }),
        headers: { "X-CSRFToken": Label.csrf() },
        redirect: "manual",
      }).catch(() => null);
      if (response?.ok)
        shown.innerHTML = await response.text(); // cleaned by the server
      else shown.textContent = "The preview needs the server, which does not answer. Your text is safe.";
    }, COOKED);
  }

  function openDialog(id) {
    document.getElementById(id)?.showModal();
    if (id === "label-guidelines") document.getElementById("guidelines-news")?.remove();
  }

  // A newer version than the page shows is told of, and shown when the person asks for it.
  Label.tellGuidelines = (version) => {
    const shown = Number(document.getElementById("label-guidelines")?.dataset.version ?? 0);
    if (!version || version === shown) return;
    Label.warn("guidelines", `The guidelines changed while you were working: version ${version}.`, {
      label: `Read version ${version}`,
      run: readGuidelines,
    });
  };
  async function readGuidelines() {
    const response = await Label.post(Label.element.dataset.guidelines, {}).catch(() => null);
    if (!response?.ok) return Label.announce("The server does not answer. Try again in a moment.");
    document.getElementById("label-guidelines")?.remove();
    Label.element.insertAdjacentHTML("beforeend", await response.text());
    Label.calm("guidelines");
    openDialog("label-guidelines");
  }

  function openSkip() {
    const skip = Label.element.querySelector("details.skip");
    if (!skip) return;
    skip.open = true;
    skip.querySelector("button").focus();
  }

  function chooseSkip(event) {
    const buttons = [...event.target.closest(".items").querySelectorAll("button")];
    const step = event.key === "ArrowDown" ? 1 : -1;
    buttons.at((buttons.indexOf(event.target) + step) % buttons.length).focus();
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
    } else if (event.key === "Escape" && isField(event.target)) {
      (event.target.closest(".reply") ?? document.getElementById("label-title")).focus({ preventScroll: true });
    } else if (/^Arrow(Up|Down)$/.test(event.key) && event.target.matches(".skip .items button")) {
      event.preventDefault();
      chooseSkip(event);
    } else if (Label.keysAllowed(event)) {
      single(event, form);
    } else if (Label.skipping() && Label.isSingleKey(event) && Label.keyOf(event) === "u") {
      event.preventDefault();
      Label.undo();
    }
  }

  const isField = (at) =>
    at.form === Label.form && at.matches("textarea, select, input") && !document.querySelector("dialog[open]");

  function single(event, form) {
    const key = Label.keyOf(event);
    const choice = form?.querySelector(`input[data-key="${CSS.escape(key)}"]`);
    const does = {
      "?": () => openDialog("label-help"),
      g: () => openDialog("label-guidelines"),
      s: openSkip,
      u: Label.undo,
      w: () => document.getElementById("id_reason")?.focus(),
      p: togglePlain,
    }[key];
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
  Label.root.addEventListener(
    "toggle",
    (event) => {
      const details = event.target.closest("details.preview");
      preview(details);
      if (details?.open) details.scrollIntoView({ block: "nearest" });
    },
    true,
  );
  document.addEventListener("htmx:load", (event) => {
    if (event.detail.elt.id === "label") ready(false);
  });
  document.addEventListener("DOMContentLoaded", () => ready(true));
})();
