// @ts-check
// The import form: how much of the file is uploaded, and where the error is.

import { findElement } from "./dom.js";

document.addEventListener("htmx:xhr:progress", (event) => {
  const upload = document.getElementById("upload");
  if (!upload || !event.detail.lengthComputable) return;
  upload.hidden = false;
  upload.querySelector("progress").value = event.detail.loaded / event.detail.total;
});
document.addEventListener("htmx:afterRequest", (event) => {
  const upload = document.getElementById("upload");
  if (upload && !event.detail.successful) upload.hidden = true;
});
document.addEventListener("htmx:afterSwap", () => {
  const invalidField = findElement("#import-form .field:has(.errorlist)");
  if (invalidField) findElement("input, select", invalidField).focus();
});
