// @ts-check
// Over 300 lines: a draft is typed, saved, refused and restored in one state.
// Nothing typed is lost: drafts go to this browser at once and to the server as one types. The server takes a draft only
// from a page that knows the newest one; otherwise both texts are offered. What the server has is not kept here as well.
"use strict";

(() => {
  const PAUSE = 700; // ms without typing before the draft goes to the server
  const RETRY = 5000; // ms before it is tried again
  const MAX_AGE = 30 * 24 * 3600_000; // ms after which what is kept here is let go
  const PREFIX = `label:${Label.root.dataset.person}:`;
  const APART = new Set(["csrfmiddlewaretoken", "token", "revision", "replaces", "active_seconds"]);

  let typedAt = 0,
    savedAt = 0,
    draftTimer = 0,
    beat = 0;

  const key = () => `${PREFIX}${Label.element.dataset.task}:${Label.form.elements.token.value}`;
  const read = (name) => JSON.parse(localStorage.getItem(name) ?? "null");
  const forget = (name) => localStorage.removeItem(name);
  const names = () => Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
  const isOfTask = (name) => `${name}:`.startsWith(`${PREFIX}${Label.element.dataset.task}:`);

  // What this browser keeps of the page: its fields, what they began from, and the submission that is under way.
  function keep(pending = null) {
    const { revision, replaces } = Label.form.elements;
    const kept = {
      typedAt: Date.now(),
      fields: Label.fields(),
      base: revision.value,
      replaces: replaces.value,
      pending,
      draftUrl: Label.element.dataset.draft,
    };
    try {
      localStorage.setItem(key(), JSON.stringify(kept));
    } catch {
      // full or forbidden: the server's draft is what remains
      Label.say("This browser keeps nothing; drafts are on the server only.");
    }
  }

  Label.fields = () => {
    const fields = {};
    for (const [name, value] of new FormData(Label.form)) {
      if (APART.has(name)) continue;
      if (name.startsWith("flags_")) (fields[name] ??= []).push(value);
      else fields[name] = value;
    }
    return fields;
  };

  Label.fill = (fields) => {
    for (const input of Label.form.elements) {
      if (!input.name || APART.has(input.name)) continue;
      const value = fields[input.name];
      if (input.type === "radio") input.checked = String(value ?? "") === input.value;
      else if (input.type === "checkbox") input.checked = (value ?? []).includes(input.value);
      else if (value !== undefined) input.value = String(value);
    }
    Label.refresh();
  };

  const filledIn = (fields) =>
    JSON.stringify(
      Object.entries(fields)
        .filter(([, value]) => value !== null && String(value) !== "")
        .map(([name, value]) => [name, Array.isArray(value) ? [...value].sort() : String(value)])
        .sort(),
    );
  Label.same = (one, other) => filledIn(one) === filledIn(other);

  // Throws where the network fails; `null` means that nobody is signed in.
  Label.post = async (url, body) => {
    const response = await fetch(url, {
      method: "POST",
      body: new URLSearchParams(body),
      redirect: "manual",
      headers: { "X-CSRFToken": Label.csrf(), Accept: "application/json" },
    });
    const isUnread =
      response.status === 403 &&
      (
        await response
          .clone()
          .json()
          .catch(() => ({}))
      ).code === "csrf_failed";
    return response.type === "opaqueredirect" || isUnread ? null : response;
  };

  function body() {
    const fields = new URLSearchParams(/** @type {any} */ (new FormData(Label.form)));
    fields.delete("csrfmiddlewaretoken");
    fields.set("typed_at", String(typedAt));
    fields.set("active_seconds", String(Label.seconds()));
    return fields;
  }

  Label.typed = () => {
    typedAt = Math.max(Date.now(), typedAt + 1);
    keep();
    Label.say("");
    clearTimeout(draftTimer);
    draftTimer = setTimeout(Label.saveDraft, PAUSE);
  };

  Label.saveDraft = async () => {
    clearTimeout(draftTimer);
    if (!Label.form || Label.choosing()) return;
    const [element, at, name] = [Label.element, typedAt, key()];
    let response, answer;
    try {
      response = await Label.post(element.dataset.draft, body());
      answer = response?.headers.get("Content-Type")?.includes("json") ? await response.json() : {};
      if (response && response.status >= 500) throw new Error(String(response.status));
    } catch {
      if (element !== Label.element) return;
      Label.say("Draft kept in this browser");
      draftTimer = setTimeout(Label.saveDraft, RETRY);
      return;
    }
    if (element !== Label.element) return;
    if (response === null) Label.signedOut();
    else if (response.ok) saved(answer.revision, at, name);
    else if (answer.code === "draft_conflict") Label.choose({ ...answer.draft, where: "server" });
    else if (answer.code === "answered") answered();
    else
      Label.warn(
        "draft",
        `The draft was not saved. ${answer.message ?? `The server answered ${response.status}.`} It is kept in this browser.`,
      );
  };

  function saved(revision, at, name) {
    Label.form.elements.revision.value = revision;
    savedAt = Math.max(savedAt, at);
    Label.calm("signed-out", "draft");
    if (at === typedAt) {
      if (!read(name)?.pending) forget(name);
      Label.say("Draft saved");
    } else if (!read(name)?.pending) {
      keep();
    }
  }

  function answered() {
    Label.warn(
      "answered",
      "You have answered this task in another window. What you wrote here is kept in this browser.",
      { label: "Next task", run: () => location.assign(Label.root.dataset.next) },
    );
  }

  Label.isDirty = () => typedAt > savedAt;
  Label.forgetDraft = () => {
    if (Label.form) forget(key());
  };
  Label.keepSubmission = (pending) => {
    clearTimeout(draftTimer);
    keep(pending);
  };

  // After a choice between two texts: what is in the form now goes on from the other's revision.
  Label.goOnFrom = (other) => {
    if (other.revision) Label.form.elements.revision.value = other.revision;
    if (other.name) forget(other.name);
    Label.typed();
    return Label.saveDraft();
  };

  async function renew() {
    const element = Label.element;
    const { revision, token } = Label.form.elements;
    let response, answer;
    try {
      response = await Label.post(element.dataset.renew, { revision: revision.value, token: token.value });
      if (element !== Label.element) return;
      if (response === null) return Label.signedOut();
      if (!response.ok) return;
      answer = await response.json();
    } catch {
      return;
    } // the next beat tries again; the draft's state says that the server is away
    if (element !== Label.element) return;
    Label.calm("signed-out");
    if (answer.outcome === "submitted") answered();
    else if (answer.outcome === "skipped")
      Label.warn("hold", "You skipped this task in another window. You can still submit an answer to it.");
    else if (answer.outcome !== "held")
      Label.warn(
        "hold",
        "Your hold on this task ended and someone else took it. You can still submit your answer: it is kept, and counts when a place becomes free.",
      );
    else Label.calm("hold");
    if (answer.draft) changedElsewhere(answer.draft);
    Label.tellGuidelines(answer.guidelines);
    Label.resendPending();
  }

  function changedElsewhere(draft) {
    if (Label.locked() || Label.same(draft.content, Label.fields())) return;
    if (Label.isDirty()) return Label.choose({ ...draft, where: "server" });
    Label.fill(draft.content);
    Label.form.elements.revision.value = draft.revision;
    Label.say("Updated from another window or device");
    Label.announce("The draft was updated from another window or device.");
  }

  // What this browser kept of the task: restored where it began from the server's draft, offered where it did not.
  function restore() {
    const base = Label.form.elements.revision.value;
    const others = [];
    let restored = false;
    for (const name of names().filter(isOfTask)) {
      const kept = read(name);
      if (kept.pending) {
        Label.form.elements.token.value = kept.pending.token;
        Label.form.elements.replaces.value = kept.replaces ?? "";
        Label.fill(kept.fields);
        typedAt = kept.typedAt;
        if (name !== key()) forget(name);
        Label.adoptPending(kept.pending);
        restored = true;
      } else if (Label.same(kept.fields, Label.fields())) {
        forget(name);
      } else if (!restored && (kept.base ?? null) === base) {
        if (kept.left) Label.form.elements.token.value = name.split(":").at(-1); // its last save may still be under way
        Label.fill(kept.fields);
        Label.form.elements.replaces.value = kept.replaces ?? "";
        forget(name);
        Label.typed();
        Label.say("Restored what you typed");
        restored = true;
      } else {
        others.push({ where: "browser", name, content: kept.fields, updated_at: kept.typedAt });
      }
    }
    for (const other of others) Label.choose(other);
  }

  // Drafts and submissions of other tasks that never reached the server, e.g. because the browser was closed meanwhile.
  async function sendWaiting() {
    for (const name of names()) {
      const kept = read(name);
      if (!kept) continue; // another window has sent it meanwhile
      if (Date.now() - kept.typedAt > MAX_AGE) forget(name);
      else if (Label.form && isOfTask(name)) continue;
      else if (kept.pending) await sendSubmission(name, kept);
      else if (kept.draftUrl) await sendDraft(name, kept);
    }
  }

  const isRefused = (response) => Boolean(response) && !response.ok && response.status < 500 && response.status !== 429;

  async function sendSubmission(name, kept) {
    const response = await Label.post(kept.pending.url, kept.pending.body).catch(() => null);
    if (response?.ok) {
      forget(name);
      toast("An answer that was waiting here has been sent.");
    } else if (isRefused(response)) {
      const { message } = await response.json().catch(() => ({ message: "The server refused it." }));
      localStorage.setItem(name, JSON.stringify({ ...kept, pending: null }));
      toast(`An answer that was waiting here was not taken: ${message}`, { error: true });
    }
  }

  async function sendDraft(name, kept) {
    const fields = new URLSearchParams({
      revision: kept.base ?? "",
      token: name.split(":").at(-1),
      typed_at: kept.typedAt,
    });
    for (const [field, value] of Object.entries(kept.fields)) {
      for (const item of [value].flat()) fields.append(field, item);
    }
    const response = await Label.post(kept.draftUrl, fields).catch(() => null);
    if (response?.ok) forget(name);
    else if (isRefused(response) && read(name)) {
      // sent no more, but offered when its task opens
      localStorage.setItem(name, JSON.stringify({ ...kept, draftUrl: "" }));
    }
  }

  Label.onReady((element) => {
    clearTimeout(draftTimer);
    clearInterval(beat);
    typedAt = savedAt = 0;
    if (Label.form) {
      beat = setInterval(renew, 1000 * element.dataset.renewSeconds);
      restore();
    }
    sendWaiting();
  });
  Label.root.addEventListener("input", (event) => {
    if (event.target.form === Label.form && event.target.name) Label.typed();
  });
  window.addEventListener("pagehide", () => {
    if (!Label.form || Label.sending() || Label.choosing() || !Label.isDirty()) return;
    const fields = body();
    fields.set("csrfmiddlewaretoken", Label.csrf());
    localStorage.setItem(key(), JSON.stringify({ ...read(key()), left: true }));
    navigator.sendBeacon(Label.element.dataset.draft, fields);
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted && navigator.onLine) location.reload(); // from the back-forward cache, the page may be an old one
  });
  const seen = () => {
    if (document.visibilityState === "visible" && Label.form) renew();
  };
  document.addEventListener("visibilitychange", seen);
  window.addEventListener("focus", seen);
})();
