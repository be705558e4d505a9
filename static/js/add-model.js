// @ts-check
// A model's file is sent in pieces before the form is; a lost connection costs one piece.

import { findElement } from "./dom.js";
import { readCsrfToken } from "./label-http.js";

/** @typedef {{ id: number, received: number, size: number, piece_bytes: number }} Upload */

const TRIES = 6; // of one piece, with longer and longer pauses
const form = /** @type {HTMLFormElement} */ (findElement("form.launch"));
const field = findElement("#model-file-field");
const fileInput = /** @type {HTMLInputElement} */ (findElement("#model-file"));
const uploadInput = /** @type {HTMLInputElement} */ (form.elements.namedItem("upload"));
const nameInput = /** @type {HTMLInputElement} */ (form.elements.namedItem("base_name"));
const button = /** @type {HTMLButtonElement} */ (findElement("button.primary", form));
/** @type {{ file: File, upload: Upload } | null} what was begun; it goes on if the same file is sent again */
let begun = null;
let stopped = false;
let sending = false;

class Refused extends Error {}

/**
 * @param {string} address
 * @param {string} method
 * @param {BodyInit} [body]
 * @param {string} [type]
 * @returns {Promise<any>}
 */
async function call(address, method, body, type = "application/octet-stream") {
  const headers = { "X-CSRFToken": readCsrfToken(), Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = type;
  const response = await fetch(address, { method, headers, body });
  if (response.ok) return response.status === 204 ? null : response.json();
  const answer = await response.json().catch(() => ({}));
  if (response.status === 409 && answer.code === "offset") return null; // the caller asks how much is there
  if (response.status >= 500 && response.status !== 507) throw new Error(`status ${response.status}`);
  throw new Refused(answer.message ?? `The server refused it (${response.status}).`);
}

/** @param {number} id */
const addressOf = (id) => field.dataset.upload.replace("/0/", `/${id}/`);

/** @param {number} bytes */
function sizeText(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${Math.ceil(bytes / 1e6)} MB`;
}

/** @param {string} text */
function showProblem(text) {
  const problem = findElement("#sending-problem");
  problem.textContent = text;
  problem.hidden = !text;
}

/**
 * @param {File} file
 * @returns {Promise<Upload>}
 */
async function begin(file) {
  if (begun && begun.file === file) return call(addressOf(begun.upload.id), "GET");
  const body = JSON.stringify({ name: file.name, size: file.size });
  return call(field.dataset.uploads, "POST", body, "application/json");
}

/**
 * @param {File} file
 * @returns {Promise<Upload | null>} null if it was stopped
 */
async function send(file) {
  let upload = await begin(file);
  begun = { file, upload };
  const startedAt = performance.now();
  const startedWith = upload.received;
  while (upload.received < file.size) {
    if (stopped) return null;
    upload = await sendPiece(file, upload);
    begun = { file, upload };
    showProgress(upload, (upload.received - startedWith) / (performance.now() - startedAt));
  }
  return upload;
}

/**
 * @param {File} file
 * @param {Upload} upload
 * @returns {Promise<Upload>}
 */
async function sendPiece(file, upload) {
  const piece = file.slice(upload.received, upload.received + upload.piece_bytes);
  for (let attempt = 1; ; attempt++) {
    try {
      const address = `${addressOf(upload.id)}?offset=${upload.received}`;
      return (await call(address, "PUT", piece)) ?? (await call(addressOf(upload.id), "GET"));
    } catch (error) {
      if (error instanceof Refused || attempt === TRIES || stopped) throw error;
      findElement("#sending-state").textContent = "The connection is lost. It is tried again.";
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
    }
  }
}

/**
 * @param {Upload} upload
 * @param {number} speed bytes per millisecond
 */
function showProgress(upload, speed) {
  /** @type {HTMLProgressElement} */ (findElement("#sending-progress")).value = upload.received / upload.size;
  const seconds = (upload.size - upload.received) / speed / 1000;
  const left = seconds > 90 ? `about ${Math.round(seconds / 60)} minutes left` : `about ${Math.ceil(seconds)} seconds left`;
  const done = `${sizeText(upload.received)} of ${sizeText(upload.size)}`;
  findElement("#sending-state").textContent = upload.received < upload.size ? `${done}, ${left}` : `${done}.`;
}

/** @param {File} file */
function problemOf(file) {
  const endings = field.dataset.endings.split(" ");
  if (!endings.some((ending) => file.name.toLowerCase().endsWith(ending))) {
    return `Choose one file that ends in ${endings.join(", ")}.`;
  }
  if (nameInput.value.trim()) return "Name a model or choose a file, not both.";
  const max = Number(field.dataset.max);
  return file.size > max ? `This file has ${sizeText(file.size)}; at most ${sizeText(max)} can be sent.` : "";
}

/** @param {boolean} on */
function setSending(on) {
  sending = on;
  button.disabled = on;
  findElement("#sending").hidden = !on;
}

form.addEventListener("submit", async (event) => {
  const file = fileInput.files[0];
  if (!file || uploadInput.value || event.submitter?.getAttribute("name") === "found") return;
  event.preventDefault();
  const problem = problemOf(file);
  showProblem(problem);
  if (problem) return fileInput.focus();
  stopped = false;
  setSending(true);
  try {
    const upload = await send(file);
    if (upload) {
      uploadInput.value = String(upload.id);
      sending = false;
      form.submit();
      return;
    }
    showProblem("Stopped. Press the button again to go on from there.");
  } catch (error) {
    const reason = error instanceof Refused ? error.message : "The connection was lost. Press the button again to go on.";
    showProblem(reason);
  }
  setSending(false);
});
findElement("#sending-stop").addEventListener("click", () => {
  stopped = true;
});
fileInput.addEventListener("change", () => {
  uploadInput.value = "";
  const file = fileInput.files[0]; // the page asks what adding it takes
  /** @type {HTMLInputElement} */ (findElement("#model-file-name")).value = file?.name ?? "";
  /** @type {HTMLInputElement} */ (findElement("#model-file-bytes")).value = file ? String(file.size) : "";
  showProblem("");
});
window.addEventListener("beforeunload", (event) => {
  if (sending) event.preventDefault();
});
