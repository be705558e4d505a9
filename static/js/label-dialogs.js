// @ts-check
// Windows of the labeling page: help and the guidelines.

import { clearAlerts, showAlert } from "./label-alerts.js";
import { tryPostForm } from "./label-http.js";
import { announce, labelElement } from "./label-page.js";

/** @param {string} id */
export function openDialog(id) {
  /** @type {HTMLDialogElement | null} */ (document.getElementById(id))?.showModal();
  if (id === "label-guidelines") document.getElementById("guidelines-news")?.remove();
}

/**
 * Offer guidelines that are newer than those on the page; they are shown when the person asks for them.
 * @param {number} version
 */
export function offerGuidelines(version) {
  const shownVersion = Number(document.getElementById("label-guidelines")?.dataset.version ?? 0);
  if (!version || version === shownVersion) return;
  showAlert("guidelines", `The guidelines changed while you were working: version ${version}.`, {
    label: `Read version ${version}`,
    run: readGuidelines,
  });
}

async function readGuidelines() {
  const response = await tryPostForm(labelElement().dataset.guidelines, {});
  if (!response?.ok) return announce("The server does not answer. Try again in a moment.");
  document.getElementById("label-guidelines")?.remove();
  labelElement().insertAdjacentHTML("beforeend", await response.text());
  clearAlerts("guidelines");
  openDialog("label-guidelines");
}
