// @ts-check
// Text that is being written: boxes that grow, counts of words, previews.

import { eventElement, findElements } from "./dom.js";
import { tryPostForm } from "./label-http.js";
import { labelElement, labelRoot } from "./label-page.js";

const PREVIEW_DELAY = 400; // ms without typing before the preview is made anew

/** Fit boxes and counts to texts that a script filled in. */
export function refreshTexts() {
  /** @type {NodeListOf<HTMLTextAreaElement>} */
  const growingBoxes = labelElement().querySelectorAll("textarea.grows");
  for (const box of growingBoxes) growBox(box);
  for (const count of findElements("[data-count-of]", labelElement())) {
    countWords(/** @type {HTMLTextAreaElement} */ (document.getElementById(count.dataset.countOf)));
  }
}

/** @param {HTMLTextAreaElement} box */
function growBox(box) {
  if (CSS.supports("field-sizing", "content")) return;
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

/** @param {HTMLTextAreaElement} box */
function countWords(box) {
  const count = document.querySelector(`[data-count-of="${box.id}"]`);
  const words = box.value.trim().split(/\s+/).filter(Boolean).length;
  if (count) count.textContent = words === 1 ? "1 word." : `${words} words.`;
}

let previewTimer = 0;

/** @param {HTMLDetailsElement | null} details */
function schedulePreview(details) {
  clearTimeout(previewTimer);
  if (details?.open) previewTimer = setTimeout(() => showPreview(details), PREVIEW_DELAY);
}

/** @param {HTMLDetailsElement} details */
async function showPreview(details) {
  const box = /** @type {HTMLTextAreaElement} */ (document.getElementById(details.dataset.previewOf));
  const preview = details.querySelector(".prose");
  const response = await tryPostForm(details.dataset.previewUrl, { text: box.value });
  if (response?.ok)
    preview.innerHTML = await response.text(); // cleaned by the server
  else preview.textContent = "The preview needs the server, which does not answer. Your text is safe.";
}

labelRoot.addEventListener("input", (event) => {
  if (!eventElement(event).matches("textarea")) return;
  const box = /** @type {HTMLTextAreaElement} */ (event.target);
  growBox(box);
  countWords(box);
  schedulePreview(document.querySelector(`details[data-preview-of="${box.id}"]`));
});
labelRoot.addEventListener(
  "toggle",
  (event) => {
    /** @type {HTMLDetailsElement | null} */
    const details = eventElement(event).closest("details.preview");
    schedulePreview(details);
    if (details?.open) details.scrollIntoView({ block: "nearest" });
  },
  true,
);
