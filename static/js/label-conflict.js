// @ts-check
// Two texts of one draft: both are shown, and the person says which one stays. Until then neither is saved over the other.

import { findElement } from "./dom.js";
import { showDraftState } from "./label-alerts.js";
import { fillFields, haveSameContent, readFields } from "./label-fields.js";
import { otherVersions } from "./label-lock.js";
import { announce, labelElement, labelForm, labelInputs } from "./label-page.js";
import { showToast } from "./toast.js";

/** @import { Fields } from "./label-fields.js" */
/** @import { OtherVersion } from "./label-lock.js" */

/**
 * What the drafts do about a choice.
 * @typedef {{ onChoice: (other: OtherVersion) => void, onUndo: () => void }} ChoiceListener
 * @type {ChoiceListener}
 */
let listener = { onChoice: () => {}, onUndo: () => {} };

/** @param {ChoiceListener} choiceListener */
export function listenToChoices(choiceListener) {
  listener = choiceListener;
}

/**
 * Have the person choose between the form and another version, after those that already wait.
 * @param {OtherVersion} other
 */
export function offerVersion(other) {
  otherVersions.push(other);
  if (otherVersions.length === 1) showVersions();
}

/** The task that the versions were of is gone. */
export function forgetVersions() {
  otherVersions.length = 0;
}

/** Show the first version that waits beside the form's, or the form alone when none does. */
export function showVersions() {
  const [other] = otherVersions;
  const panel = document.getElementById("label-conflict");
  panel.hidden = !other;
  document.getElementById("label-fields").inert = Boolean(other);
  if (!other) return;
  panel.replaceChildren(...describeChoice(other));
  showDraftState("Not saved yet: choose a version");
  panel.focus({ preventScroll: true });
  panel.scrollIntoView({ block: "center" });
  announce("This draft has two versions. Choose which to keep.");
}

/** @param {OtherVersion} other */
function describeChoice(other) {
  const current = readFields();
  const time = new Date(other.updated_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const isOnServer = other.where === "server";
  const columns = createElement(
    "div",
    { className: "grid pairs" },
    createColumn("Here", current, "Keep this one", () => chooseFields(current)),
    createColumn(
      isOnServer ? `Saved elsewhere, ${time}` : `Kept in this browser, ${time}`,
      other.content,
      "Use this one",
      () => chooseFields(other.content),
    ),
  );
  const explanation = isOnServer
    ? "It was changed in another window or on another device. Choose which to keep."
    : "Another one was typed in this browser and never saved. Choose which to keep.";
  const elements = [
    createElement("h2", { textContent: "This draft has two versions" }),
    createElement("p", { textContent: explanation }),
    columns,
  ];
  if (labelForm().querySelector("textarea[data-first]")) {
    const keepBoth = () => chooseFields(joinTexts(current, other.content));
    elements.push(createButton("Keep both, one after the other", keepBoth));
  }
  return elements;
}

/**
 * @param {string} title
 * @param {Fields} fields
 * @param {string} label of its button
 * @param {() => void} run
 */
function createColumn(title, fields, label, run) {
  const rows = describeFields(fields).flatMap(([name, text]) => [
    createElement("dt", { className: "small quiet", textContent: name }),
    createElement("dd", { dir: "auto", textContent: text }),
  ]);
  const content = rows.length
    ? createElement("dl", {}, ...rows)
    : createElement("p", { className: "quiet", textContent: "Nothing filled in." });
  const heading = createElement("h3", { textContent: title });
  return createElement("section", { className: "card" }, heading, content, createButton(label, run));
}

/**
 * @param {string} label
 * @param {() => void} run
 */
function createButton(label, run) {
  return createElement("button", { type: "button", textContent: label, onclick: run });
}

/**
 * @param {string} tag
 * @param {object} properties
 * @param {...Node} children
 */
function createElement(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/**
 * [[name, text], …] of the fields that are filled in, as the page names them.
 * @param {Fields} fields
 */
function describeFields(fields) {
  /** @type {Map<string, [string, string]>} */
  const rows = new Map();
  for (const input of labelInputs()) {
    const value = fields[input.name];
    if (value === undefined || value === null || String(value) === "") continue;
    const isOption = input.type === "radio" || input.type === "checkbox";
    if (isOption && ![value].flat().map(String).includes(input.value)) continue;
    const text = isOption ? nameOption(input) : String(value);
    const previous = rows.get(input.name);
    rows.set(input.name, [nameInput(input), previous ? `${previous[1]}, ${text}` : text]);
  }
  return [...rows.values()];
}

/** @param {HTMLInputElement} input */
function nameInput(input) {
  const label = input.closest("fieldset")?.querySelector("legend") ?? input.labels?.[0];
  return label?.firstChild.textContent.trim() ?? input.name;
}

/** @param {HTMLInputElement} input */
function nameOption(input) {
  return input.nextElementSibling?.firstChild.textContent.trim() ?? input.value;
}

/**
 * The fields that the form has, with the texts of both.
 * @param {Fields} current
 * @param {Fields} other
 */
function joinTexts(current, other) {
  const joined = { ...current };
  for (const { name } of labelForm().querySelectorAll("textarea")) {
    const texts = [current[name], other[name]].filter(Boolean);
    joined[name] = texts[0] === texts[1] ? texts[0] : texts.join("\n\n");
  }
  return joined;
}

/** @param {Fields} fields */
function chooseFields(fields) {
  const other = otherVersions.shift();
  const previous = readFields();
  const element = labelElement();
  if (!haveSameContent(fields, previous)) {
    const undo = () => {
      if (element !== labelElement()) return; // another task is shown
      fillFields(previous);
      listener.onUndo();
    };
    fillFields(fields);
    showToast("The draft was replaced.", { action: { label: "Undo", run: undo }, seconds: 20 });
  }
  showVersions();
  listener.onChoice(other);
  if (!otherVersions.length) findElement("#label-form textarea, .reply")?.focus({ preventScroll: true });
}
