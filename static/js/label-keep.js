// Nothing typed is lost: drafts go to this browser at once and to the server as one types; a submission stays here until
// the server has said that it has it, and is sent again with the same token; the hold on the task is kept while the page is open.
"use strict";

(() => {
  const PAUSE = 700; // ms without typing before the draft goes to the server
  const IDLE = 30_000; // ms without a touch after which time does not count as work
  const OLD = 30 * 24 * 3600_000; // ms after which what is kept here is let go
  const PREFIX = `label:${Label.root.dataset.person}:`;
  const APART = new Set(["csrfmiddlewaretoken", "token", "active_seconds"]);

  let key, typedAt, savedAt, draftTimer, retryTimer, retries, beat, seconds, lastTouch = Date.now(), sending = false;

  const read = (name) => JSON.parse(localStorage.getItem(name) ?? "null");
  const forget = (name) => localStorage.removeItem(name);
  function write(name, value) {
    try {
      localStorage.setItem(name, JSON.stringify(value));
    } catch { // full or forbidden: the server's draft is what remains
      say("This browser keeps nothing; drafts are on the server only.");
    }
  }
  const say = (text) => { const state = document.getElementById("draft-state"); if (state) state.textContent = text; };

  function warn(text, { label = "", run = null, href = "" } = {}) {
    const box = document.getElementById("label-alert");
    box.className = "notice warn";
    box.textContent = `${text} `;
    if (label) {
      const action = document.createElement(href ? "a" : "button");
      action.textContent = label;
      if (href) Object.assign(action, { href, target: "_blank", rel: "noopener" });
      else { action.type = "button"; action.className = "small"; action.addEventListener("click", run); }
      box.append(action);
    }
    box.hidden = false;
  }
  const calm = () => { document.getElementById("label-alert").hidden = true; };
  const signedOut = () => warn("You are signed out. What you wrote is kept here.", {
    label: "Sign in in a new window", href: Label.root.dataset.login,
  });

  function fieldsOf(form) {
    const fields = {};
    for (const [name, value] of new FormData(form)) {
      if (APART.has(name)) continue;
      if (name.startsWith("flags_")) (fields[name] ??= []).push(value);
      else fields[name] = value;
    }
    return fields;
  }

  function fill(form, fields) {
    for (const input of form.elements) {
      if (!input.name || APART.has(input.name)) continue;
      const value = fields[input.name];
      if (input.type === "radio") input.checked = value === input.value;
      else if (input.type === "checkbox") input.checked = (value ?? []).includes(input.value);
      else if (value !== undefined) input.value = value;
    }
  }

  // Throws where the network fails; `null` means that nobody is signed in.
  async function post(url, body) {
    const response = await fetch(url, {
      method: "POST", body: new URLSearchParams(body), redirect: "manual",
      headers: { "X-CSRFToken": Label.csrf(), Accept: "application/json" },
    });
    const refusedUnread = response.status === 403 && !response.headers.get("Content-Type")?.includes("json");
    return response.type === "opaqueredirect" || refusedUnread ? null : response;
  }

  function draftBody() {
    const body = new URLSearchParams(new FormData(Label.form));
    body.delete("csrfmiddlewaretoken");
    body.set("revision", typedAt);
    return body;
  }

  function typed() {
    typedAt = Date.now();
    write(key, { ...read(key), typedAt, fields: fieldsOf(Label.form) });
    say("");
    clearTimeout(draftTimer);
    draftTimer = setTimeout(saveDraft, PAUSE);
  }

  async function saveDraft() {
    const [name, at] = [key, typedAt];
    try {
      const response = await post(Label.element.dataset.draft, draftBody());
      if (name !== key) return;
      if (response === null) return signedOut();
      if (!response.ok) throw new Error(String(response.status));
      savedAt = at;
      if (at === typedAt) say("Draft saved");
    } catch {
      if (name !== key) return;
      say("Draft kept in this browser");
      draftTimer = setTimeout(saveDraft, 5000);
    }
  }

  async function renew() {
    const element = Label.element;
    try {
      const response = await post(element.dataset.renew, {});
      if (element !== Label.element) return;
      if (response === null) return signedOut();
      if (!response.ok) return;
      const { outcome } = await response.json();
      if (outcome === "submitted") warn("You have answered this task in another window.", { label: "Next task", run: () => location.assign("/label/") });
      else if (outcome !== "held") warn("Your hold on this task ended and someone else took it. You can still send your answer: it is kept, and counts when a place becomes free.");
      else if (read(key)?.pending && !retryTimer) resend(); // signed in again
      else if (!retryTimer) calm();
    } catch { /* the next beat tries again; the draft's state says that the server is away */ }
  }

  function failed() {
    sending = false;
    retries += 1;
    warn("The server does not answer. Your answer is kept in this browser and is sent again by itself.", { label: "Send now", run: resend });
    clearTimeout(retryTimer);
    retryTimer = setTimeout(resend, 1000 * Math.min(30, 2 ** retries));
  }

  function resend() {
    clearTimeout(retryTimer);
    retryTimer = 0;
    if (Label.form && !sending) Label.form.requestSubmit();
  }

  // Submissions of other tasks that were never confirmed, e.g. because the browser was closed meanwhile.
  async function sendWaiting() {
    for (const name of Object.keys(localStorage).filter((n) => n.startsWith(PREFIX))) {
      const kept = read(name);
      if (Date.now() - kept.typedAt > OLD) forget(name);
      if (!kept.pending || name === key) continue;
      const response = await post(kept.pending.url, kept.pending.body).catch(() => null);
      if (response?.ok) {
        forget(name);
        toast("An answer that was waiting here has been sent.");
      } else if (response && response.status < 500) {
        const { message } = await response.json().catch(() => ({ message: "The server refused it." }));
        write(name, { ...kept, pending: null });
        toast(`An answer that was waiting here was not taken: ${message}`, { error: true });
      }
    }
  }

  Label.onReady((element) => {
    clearTimeout(draftTimer);
    clearTimeout(retryTimer);
    clearInterval(beat);
    [retries, retryTimer, seconds, sending] = [0, 0, 0, false];
    key = Label.form ? PREFIX + element.dataset.task : "";
    if (!Label.form) return sendWaiting();
    typedAt = savedAt = Number(element.dataset.revision);
    beat = setInterval(renew, 1000 * element.dataset.renewSeconds);
    const kept = read(key);
    if (kept && kept.typedAt > savedAt) {
      fill(Label.form, kept.fields);
      typedAt = kept.typedAt;
      say("Restored what you typed");
      draftTimer = setTimeout(saveDraft, PAUSE);
    }
    if (kept?.pending) {
      Label.form.elements.token.value = kept.pending.token;
      retryTimer = setTimeout(resend, 0);
    }
    return sendWaiting();
  });

  const isSubmission = (event) => event.detail.elt.id === "label-form";
  Label.root.addEventListener("input", (event) => { if (event.target.form === Label.form) typed(); });
  Label.root.addEventListener("htmx:configRequest", (event) => {
    delete event.detail.parameters.csrfmiddlewaretoken; // it is an old one after signing in again; the cookie has the new one
    event.detail.headers["X-CSRFToken"] = Label.csrf();
    if (isSubmission(event)) event.detail.parameters.active_seconds = String(seconds);
  });
  Label.root.addEventListener("htmx:beforeRequest", (event) => {
    if (!isSubmission(event)) return;
    const missing = Label.missing?.();
    if (sending || missing) {
      event.preventDefault();
      if (missing) warn(missing);
      return;
    }
    sending = true;
    clearTimeout(draftTimer);
    const body = [...new FormData(Label.form)].filter(([name]) => name !== "csrfmiddlewaretoken");
    const pending = { url: Label.form.action, token: Label.form.elements.token.value, body };
    write(key, { typedAt: Date.now(), fields: fieldsOf(Label.form), pending });
  });
  Label.root.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    if (xhr.status >= 400) return;
    if (!xhr.responseText.includes('id="label"')) { // the sign-in page
      event.detail.shouldSwap = false;
      sending = false;
      signedOut();
    } else if (key && event.detail.requestConfig.elt.id !== "label-undo") {
      forget(key); // the server has it, or was told to skip it
    }
  });
  Label.root.addEventListener("htmx:responseError", (event) => {
    event.stopPropagation();
    const { xhr } = event.detail;
    if (isSubmission(event) && (xhr.status >= 500 || xhr.status === 429)) return failed();
    sending = false;
    if (xhr.status === 403 && /^\s*<!doctype/i.test(xhr.responseText)) return signedOut(); // not read for want of a cookie
    if (isSubmission(event)) write(key, { ...read(key), pending: null });
    const page = new DOMParser().parseFromString(xhr.responseText, "text/html");
    warn(page.querySelector("[data-error-message]")?.textContent.trim() ?? `The server answered ${xhr.status}. What you wrote is kept; reload the page and try again.`);
  });
  for (const name of ["htmx:sendError", "htmx:timeout"]) {
    Label.root.addEventListener(name, (event) => {
      event.stopPropagation();
      if (isSubmission(event)) failed();
      else warn("The server does not answer. Try again in a moment; what you wrote is kept.");
    });
  }
  window.addEventListener("online", () => { if (retryTimer) resend(); });
  window.addEventListener("pagehide", () => {
    if (!Label.form || sending || typedAt <= savedAt) return;
    const body = draftBody();
    body.set("csrfmiddlewaretoken", Label.csrf());
    navigator.sendBeacon(Label.element.dataset.draft, body);
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && Label.form) renew();
  });
  for (const name of ["keydown", "pointerdown", "pointermove", "scroll"]) {
    document.addEventListener(name, () => { lastTouch = Date.now(); }, { passive: true, capture: true });
  }
  setInterval(() => {
    if (document.visibilityState === "visible" && Date.now() - lastTouch < IDLE) seconds += 1;
  }, 1000);
})();
