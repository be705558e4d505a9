// @ts-check
// The parts of the labeling page. Each task swaps all but the root, so they are looked up when they are needed.

export const labelRoot = document.getElementById("label-root");

/** What is swapped: a task, or the words that there is none. */
export function labelElement() {
  return document.getElementById("label");
}

/**
 * The form of the task, or null where there is no task.
 * @returns {HTMLFormElement | null}
 */
export function labelForm() {
  return document.querySelector("form#label-form");
}

/**
 * One of the form's hidden fields: "token", "revision", "replaces" or "active_seconds".
 * @param {string} name
 * @returns {HTMLInputElement}
 */
export function hiddenField(name) {
  return labelForm().querySelector(`input[type=hidden][name="${name}"]`);
}

/**
 * Everything in the form that has a name and a value.
 * @returns {HTMLInputElement[]}
 */
export function labelInputs() {
  return [...labelForm().elements].map((input) => /** @type {HTMLInputElement} */ (input));
}

/**
 * Have screen readers say it.
 * @param {string} text
 */
export function announce(text) {
  document.getElementById("label-live").textContent = text;
}
