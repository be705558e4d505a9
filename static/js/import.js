// @ts-check
// The import form: how much of the file is uploaded, and where the error is.
"use strict";

document.addEventListener("htmx:xhr:progress", (event) => {
  const field = document.getElementById("upload");
  if (!field || !event.detail.lengthComputable) return;
  field.hidden = false;
  field.querySelector("progress").value = event.detail.loaded / event.detail.total;
});
document.addEventListener("htmx:afterRequest", (event) => {
  const field = document.getElementById("upload");
  if (field && !event.detail.successful) field.hidden = true;
});
document.addEventListener("htmx:afterSwap", () => {
  const wrong = document.querySelector("#import-form .field:has(.errorlist)");
  if (wrong) wrong.querySelector("input, select").focus();
});
