// @ts-check
// Text of people and models: rendered, or plain as it is. The choice is kept in the browser; theme.js applies it at once.

const { dataset } = document.documentElement;

/** Show on the buttons that choose between plain and rendered text which of the two is on. */
export function markPlainTextButtons() {
  for (const button of document.querySelectorAll("[data-toggle-plain]")) {
    button.setAttribute("aria-pressed", String(dataset.textView === "plain"));
  }
}

export function togglePlainText() {
  const plain = dataset.textView !== "plain";
  localStorage.setItem("text-view", plain ? "plain" : "rendered");
  if (plain) dataset.textView = "plain";
  else delete dataset.textView;
  markPlainTextButtons();
}
