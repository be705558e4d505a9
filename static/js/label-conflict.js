// @ts-check
// Two texts of one draft: both are shown, and the person says which one stays. Until then neither is saved over the other.
"use strict";

(() => {
  let waiting = []; // the other texts, the first of which is shown

  const panel = () => document.getElementById("label-conflict");
  Label.choosing = () => waiting.length > 0;

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  const nameOf = (input) => {
    const label = input.closest("fieldset")?.querySelector("legend") ?? input.labels?.[0];
    return label?.firstChild.textContent.trim() ?? input.name;
  };
  const optionOf = (input) => input.nextElementSibling?.firstChild.textContent.trim() ?? input.value;

  // [[name, text], …] of the fields that are filled in, as the page names them.
  function described(fields) {
    const rows = new Map();
    for (const input of Label.form.elements) {
      const value = fields[input.name];
      if (value === undefined || value === null || String(value) === "") continue;
      const chosen = [value].flat().map(String);
      const isOption = input.type === "radio" || input.type === "checkbox";
      if (isOption && !chosen.includes(input.value)) continue;
      const text = isOption ? optionOf(input) : String(value);
      rows.set(input.name, [nameOf(input), rows.has(input.name) ? `${rows.get(input.name)[1]}, ${text}` : text]);
    }
    return [...rows.values()];
  }

  function column(title, fields, button, run) {
    const rows = described(fields).flatMap(([name, text]) => [
      element("dt", { className: "small quiet", textContent: name }),
      element("dd", { dir: "auto", textContent: text }),
    ]);
    const text = rows.length
      ? element("dl", {}, ...rows)
      : element("p", { className: "quiet", textContent: "Nothing filled in." });
    const action = element("button", { type: "button", textContent: button, onclick: run });
    return element("section", { className: "card" }, element("h3", { textContent: title }), text, action);
  }

  function joined(mine, theirs) {
    const both = { ...mine };
    for (const box of Label.form.querySelectorAll("textarea")) {
      const texts = [mine[box.name], theirs[box.name]].filter(Boolean);
      both[box.name] = texts[0] === texts[1] ? texts[0] : texts.join("\n\n");
    }
    return both;
  }

  function settle(fields) {
    const other = waiting.shift();
    const [before, page] = [Label.fields(), Label.element];
    if (!Label.same(fields, before)) {
      const undo = () => {
        if (page === Label.element) {
          Label.fill(before);
          Label.typed();
        }
      };
      Label.fill(fields);
      toast("The draft was replaced.", { action: { label: "Undo", run: undo }, seconds: 20 });
    }
    show();
    Label.goOnFrom(other);
    if (!waiting.length) document.querySelector("#label-form textarea, .reply")?.focus({ preventScroll: true });
  }

  function show() {
    const [other] = waiting;
    panel().hidden = !other;
    document.getElementById("label-fields").inert = Boolean(other);
    if (!other) return;
    const mine = Label.fields();
    const when = new Date(other.updated_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const where = other.where === "server" ? `Saved elsewhere, ${when}` : `Kept in this browser, ${when}`;
    const actions = [];
    if (Label.form.querySelector("textarea[data-first]")) {
      actions.push(
        element("button", {
          type: "button",
          textContent: "Keep both, one after the other",
          onclick: () => settle(joined(mine, other.content)),
        }),
      );
    }
    panel().replaceChildren(
      element("h2", { textContent: "This draft has two versions" }),
      element("p", {
        textContent:
          other.where === "server"
            ? "It was changed in another window or on another device. Choose which to keep."
            : "Another one was typed in this browser and never saved. Choose which to keep.",
      }),
      element(
        "div",
        { className: "grid pairs" },
        column("Here", mine, "Keep this one", () => settle(mine)),
        column(where, other.content, "Use this one", () => settle(other.content)),
      ),
      ...actions,
    );
    Label.say("Not saved yet: choose a version");
    panel().focus({ preventScroll: true });
    panel().scrollIntoView({ block: "center" });
    Label.announce("This draft has two versions. Choose which to keep.");
  }

  // `other`: {where: "server" | "browser", content, updated_at, revision or name}.
  Label.choose = (other) => {
    waiting.push(other);
    if (waiting.length === 1) show();
  };
  Label.showChoice = () => show();
  Label.onReady(() => {
    waiting = [];
  });
})();
