// @ts-check
// Elements with the types that a selector alone does not tell.

/**
 * @param {string} selector
 * @param {ParentNode} [root]
 * @returns {HTMLElement | null}
 */
export function findElement(selector, root = document) {
  return root.querySelector(selector);
}

/**
 * @param {string} selector
 * @param {ParentNode} [root]
 * @returns {HTMLElement[]}
 */
export function findElements(selector, root = document) {
  return [...root.querySelectorAll(selector)].map((element) => /** @type {HTMLElement} */ (element));
}

/**
 * The element that an event happened on. It is the document itself for keys pressed while nothing has the focus, and then
 * it has no `closest`.
 * @param {Event} event
 * @returns {HTMLElement}
 */
export function eventElement(event) {
  return /** @type {HTMLElement} */ (event.target);
}

/**
 * The element that an event happened on or in, or null.
 * @param {Event} event
 * @param {string} selector
 * @returns {HTMLElement | null}
 */
export function closestElement(event, selector) {
  return eventElement(event).closest?.(selector) ?? null;
}
