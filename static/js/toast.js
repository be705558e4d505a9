// @ts-check
// Messages that come and go at the bottom of every page.

/**
 * Show a message for some seconds. An error stays longer than other messages.
 * @param {string} text
 * @param {{ error?: boolean, action?: { label: string, run: () => void }, seconds?: number }} [options] `action` becomes
 *   a button, such as an undo
 */
export function showToast(text, { error = false, action = null, seconds = error ? 12 : 6 } = {}) {
  const toast = document.createElement("div");
  toast.className = error ? "toast error" : "toast";
  const words = document.createElement("span");
  words.textContent = text;
  toast.append(words);
  if (action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action.label;
    button.addEventListener("click", () => {
      toast.remove();
      action.run();
    });
    toast.append(button);
  }
  document.querySelector(".toasts").append(toast);
  setTimeout(() => toast.remove(), seconds * 1000);
  return toast;
}
