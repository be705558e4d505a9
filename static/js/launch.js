// @ts-check
// The launch form: settings that nobody has set follow the model, the data and the recipe that are chosen; those that
// others leave without effect are hidden.

import { closestElement, eventElement, findElement, findElements } from "./dom.js";

/** @typedef {HTMLInputElement | HTMLSelectElement} Control */
/** @typedef {Record<string, { value: string, why: string }>} Proposals */

const form = /** @type {HTMLFormElement} */ (findElement("form.launch"));
const touchedField = /** @type {HTMLInputElement} */ (form.elements.namedItem("touched"));
const touched = new Set(touchedField.value.split(",").filter(Boolean));

/** @param {Control} control */
function markTouched(control) {
  if (isEmpty(control)) {
    touched.delete(control.name); // an emptied setting follows the model again
    setValue(control, control.dataset.default);
  } else {
    touched.add(control.name);
    showWhy(control.name, "");
  }
  touchedField.value = [...touched].join(",");
}

/** @param {Control} control */
function isEmpty(control) {
  return control.type === "number" && control.value === "" && !control.validity.badInput;
}

/**
 * @param {Control} control
 * @param {string} value
 */
function setValue(control, value) {
  if (control instanceof HTMLInputElement && control.type === "checkbox") control.checked = value === "true";
  else control.value = value;
}

/**
 * @param {string} name
 * @param {string} why
 */
function showWhy(name, why) {
  const note = findElement(`[data-proposal="${name}"]`, form);
  if (!note) return;
  note.hidden = !why;
  note.querySelector("span").textContent = why;
}

function showProposals() {
  const source = document.getElementById("proposals");
  if (!source) return; // the form is not complete
  /** @type {Proposals} */
  const proposals = JSON.parse(source.textContent);
  for (const element of findElements("[data-default]", form)) {
    const control = /** @type {Control} */ (element);
    if (touched.has(control.name)) continue;
    const proposal = proposals[control.name];
    setValue(control, proposal?.value ?? control.dataset.default);
    showWhy(control.name, proposal?.why ?? "");
  }
  showWhatHasEffect();
}

/**
 * The value of another setting, as the contract writes it.
 * @param {string} name
 */
function valueOf(name) {
  const control = form.elements.namedItem(name);
  if (control instanceof HTMLInputElement && control.type === "checkbox") return control.checked;
  const text = /** @type {Control} */ (control)?.value;
  return control instanceof HTMLInputElement && control.type === "number" ? Number(text) : text;
}

function showWhatHasEffect() {
  for (const element of findElements("[data-only-with]", form)) {
    /** @type {Record<string, "positive" | "several" | unknown[]>} */
    const onlyWith = JSON.parse(element.dataset.onlyWith);
    element.hidden = !Object.entries(onlyWith).every(([name, wanted]) =>
      Array.isArray(wanted) ? wanted.includes(valueOf(name)) : Number(valueOf(name)) > (wanted === "several" ? 1 : 0),
    );
  }
}

form.addEventListener("input", (event) => {
  const control = /** @type {Control} */ (closestElement(event, "[data-default]"));
  if (control && !isEmpty(control)) markTouched(control);
});
form.addEventListener("change", (event) => {
  const control = /** @type {Control} */ (closestElement(event, "[data-default]"));
  if (control) markTouched(control);
  showWhatHasEffect();
});
document.addEventListener("htmx:afterSwap", (event) => {
  if (eventElement(event).id === "advice" || event.detail.target.id === "advice") showProposals();
});
showWhatHasEffect();
