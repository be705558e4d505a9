// @ts-check
// A submission stays in this browser until the server has said that it has it, and is sent again with the same token.
// Meanwhile the form is locked, so that what is sent again is what was sent; to change it is to replace it.
// One action is under way at a time. An undo that is asked for meanwhile is about that one, and follows it.
"use strict";

(() => {
  const MAX_WAIT = 30; // seconds between two tries
  let sending = false,
    pending = null,
    retries = 0,
    retryTimer = 0,
    focused = null;
  let acting = null,
    undoNext = false; // the form of a skip or an undo under way; whether an undo follows what is under way

  Label.skipping = () => acting?.id === "label-skip";
  Label.sending = () => sending || pending !== null || Label.skipping();
  const isSubmission = (event) => event.detail.elt.id === "label-form";
  const changesDraft = (event) => isSubmission(event) || event.detail.elt.id === "label-skip";

  function lock(locked) {
    const fields = document.getElementById("label-fields");
    if (locked && fields.contains(document.activeElement)) focused = document.activeElement;
    fields.inert = locked || Label.choosing();
    fields.classList.toggle("locked", locked);
    if (!locked) {
      focused?.focus({ preventScroll: true });
      focused = null;
    }
  }

  function newToken() {
    // randomUUID is there over https only
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  function failed() {
    sending = false;
    if (undoNext) return change();
    retries += 1;
    Label.warn(
      "away",
      "The server does not answer. Your answer is kept in this browser and is sent again by itself.",
      { label: "Send now", run: resend },
      { label: "Change it", run: change },
    );
    Label.say("Not sent yet");
    clearTimeout(retryTimer);
    retryTimer = setTimeout(resend, 1000 * Math.min(MAX_WAIT, 2 ** retries));
  }

  function resend() {
    clearTimeout(retryTimer);
    retryTimer = 0;
    if (Label.form && pending && !sending) Label.form.requestSubmit();
  }
  Label.resendPending = () => {
    if (pending && !sending && !retryTimer) resend();
  };
  Label.adoptPending = (kept) => {
    pending = kept;
    lock(true);
    retryTimer = setTimeout(resend, 0);
  };

  // The answer may have arrived all the same, so the next one says which it replaces. If it is being sent again right now,
  // the response must not take away the page that is being typed into.
  function change() {
    clearTimeout(retryTimer);
    if (sending) htmx.trigger(Label.form, "htmx:abort");
    sending = false;
    const { token, replaces } = Label.form.elements;
    Label.forgetDraft();
    replaces.value = `${replaces.value} ${pending.token}`.trim();
    token.value = newToken();
    [pending, retryTimer, undoNext] = [null, 0, false];
    Label.calm("away");
    lock(false);
    Label.typed();
  }

  function begin(event) {
    if (sending || acting) return event.preventDefault();
    const missing = Label.missing?.();
    if (missing || Label.choosing()) {
      event.preventDefault();
      if (Label.choosing()) Label.showChoice();
      else if (missing) {
        Label.warn("missing", missing);
        Label.showMissing();
      }
      return;
    }
    sending = true;
    lock(true);
    Label.say("Sending…");
    const fields = [...new FormData(Label.form)].filter(([name]) => name !== "csrfmiddlewaretoken");
    pending = {
      url: Label.form.action,
      token: Label.form.elements.token.value,
      body: [...fields.filter(([name]) => name !== "active_seconds"), ["active_seconds", Label.seconds()]],
    };
    Label.keepSubmission(pending);
  }

  function beginSkip(event) {
    if (sending || acting) return event.preventDefault();
    acting = event.detail.elt;
    lock(true);
    Label.say("Skipping…");
  }

  function undoWhatIsUnderWay() {
    undoNext = true;
    Label.say("Undoing…");
    Label.announce("It is undone as soon as the server has it.");
  }

  // The button names an older action. An answer that could not be sent yet is opened again; one that is on its way, and a
  // skip, are undone when the server has them.
  function beginUndo(event) {
    if (!sending && !pending && !acting) {
      acting = event.detail.elt;
      return;
    }
    event.preventDefault();
    if (sending || Label.skipping()) undoWhatIsUnderWay();
    else if (pending) change();
  }
  Label.undo = () => {
    if (Label.skipping()) undoWhatIsUnderWay();
    else document.getElementById("label-undo")?.requestSubmit();
  };

  function ended(form) {
    if (form !== acting) return;
    if (Label.skipping()) {
      lock(false);
      Label.say("");
    }
    [acting, undoNext] = [null, false];
  }

  function giveUp() {
    [sending, pending, undoNext] = [false, null, false];
    lock(false);
    Label.say("");
    Label.keepSubmission(null);
  }

  function refused(event) {
    event.stopPropagation();
    const { xhr } = event.detail;
    if (isSubmission(event) && (xhr.status >= 500 || xhr.status === 429)) return failed();
    if (isSubmission(event)) giveUp();
    const message = new DOMParser()
      .parseFromString(xhr.responseText, "text/html")
      .querySelector("[data-error-message]");
    if (message?.dataset.errorCode === "csrf_failed") return Label.signedOut(); // not read for want of a cookie
    if (changesDraft(event) && message?.dataset.errorCode === "draft_conflict") return Label.saveDraft(); // which offers both
    Label.warn(
      "refused",
      message?.textContent.trim() ??
        `The server answered ${xhr.status}. What you wrote is kept; reload the page and try again.`,
    );
  }

  Label.onReady(() => {
    clearTimeout(retryTimer);
    const undoes = undoNext;
    [retries, retryTimer, sending, pending, focused, acting, undoNext] = [0, 0, false, null, null, null, false];
    if (undoes) Label.undo();
  });
  Label.root.addEventListener("htmx:configRequest", (event) => {
    delete event.detail.parameters.csrfmiddlewaretoken; // it is an old one after signing in again; the cookie has the new one
    event.detail.headers["X-CSRFToken"] = Label.csrf();
    if (!changesDraft(event)) return;
    event.detail.parameters.active_seconds = Label.seconds();
    event.detail.parameters.typed_at = String(Date.now());
  });
  const begins = { "label-form": begin, "label-skip": beginSkip, "label-undo": beginUndo };
  Label.root.addEventListener("htmx:beforeRequest", (event) => begins[event.detail.elt.id]?.(event));
  Label.root.addEventListener("htmx:afterRequest", (event) => ended(event.detail.elt));
  Label.root.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    if (xhr.status >= 400) return;
    if (!xhr.responseText.includes('id="label"')) {
      // the sign-in page
      event.detail.shouldSwap = false;
      if (isSubmission(event)) giveUp();
      Label.signedOut();
    } else if (event.detail.requestConfig.elt.id !== "label-undo") {
      Label.forgetDraft(); // the server has it
      Label.forgetTime();
    }
  });
  Label.root.addEventListener("htmx:responseError", refused);
  for (const name of ["htmx:sendError", "htmx:timeout"]) {
    Label.root.addEventListener(name, (event) => {
      event.stopPropagation();
      if (isSubmission(event)) failed();
      else Label.warn("refused", "The server does not answer. Try again in a moment; what you wrote is kept.");
    });
  }
  window.addEventListener("online", () => {
    if (pending) resend();
  });
})();
