// @ts-check
// What the person fills in, apart from the form that holds it.

import { labelForm, labelInputs } from "./label-page.js";
import { drawRanks } from "./label-rank.js";
import { refreshTexts } from "./label-text.js";

/** @typedef {Record<string, string | string[]>} Fields by the name of the input; flags are lists */

const NOT_FILLED_IN = new Set(["csrfmiddlewaretoken", "token", "revision", "replaces", "active_seconds"]);

export function readFields() {
  /** @type {Fields} */
  const fields = {};
  for (const [name, value] of new FormData(labelForm())) {
    if (NOT_FILLED_IN.has(name)) continue;
    if (name.startsWith("flags_")) fields[name] = [fields[name] ?? [], String(value)].flat();
    else fields[name] = String(value);
  }
  return fields;
}

/** @param {Fields} fields */
export function fillFields(fields) {
  for (const input of labelInputs()) {
    if (!input.name || NOT_FILLED_IN.has(input.name)) continue;
    const value = fields[input.name];
    if (input.type === "radio") input.checked = String(value ?? "") === input.value;
    else if (input.type === "checkbox") input.checked = (value ?? []).includes(input.value);
    else if (value !== undefined) input.value = String(value);
  }
  refreshForm();
}

/** After a script changed the form: have everything that is derived from its fields follow. */
export function refreshForm() {
  refreshTexts();
  drawRanks();
}

/**
 * Whether two sets of fields say the same; a field that is empty may as well be missing.
 * @param {Fields} first
 * @param {Fields} second
 */
export function haveSameContent(first, second) {
  return normalize(first) === normalize(second);
}

/** @param {Fields} fields */
function normalize(fields) {
  const filled = Object.entries(fields).filter(([, value]) => value !== null && String(value) !== "");
  return JSON.stringify(
    filled.map(([name, value]) => [name, Array.isArray(value) ? [...value].sort() : String(value)]).sort(),
  );
}
