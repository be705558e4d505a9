// @ts-check
// What every page has: the theme, messages that come and go, menus that close, forms that ask before they act.
"use strict";

const root = document.documentElement;

function applyTheme(theme) {
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  else delete root.dataset.theme;
  for (const button of document.querySelectorAll("[data-set-theme]")) {
    button.setAttribute("aria-pressed", String((theme || "auto") === button.dataset.setTheme));
  }
}

// A message at the bottom of the page. `action` is {label, run}, e.g. an undo. Returns the element.
function toast(text, { error = false, action = null, seconds = error ? 12 : 6 } = {}) {
  const element = document.createElement("div");
  element.className = error ? "toast error" : "toast";
  const words = document.createElement("span");
  words.textContent = text;
  element.append(words);
  if (action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action.label;
    button.addEventListener("click", () => {
      element.remove();
      action.run();
    });
    element.append(button);
  }
  document.querySelector(".toasts").append(element);
  setTimeout(() => element.remove(), seconds * 1000);
  return element;
}
window.toast = toast;

// The server shows times in this zone, unless the person chose another in their profile.
{
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && !document.cookie.split("; ").includes(`time_zone=${zone}`)) {
    const secure = location.protocol === "https:" ? "; secure" : "";
    document.cookie = `time_zone=${zone}; path=/; max-age=31536000; samesite=lax${secure}`;
  }
}

// Text of people and models: rendered, or plain as it is. The choice is kept in the browser; theme.js applies it at once.
function showPlainButtons() {
  for (const button of document.querySelectorAll("[data-toggle-plain]")) {
    button.setAttribute("aria-pressed", String(root.dataset.textView === "plain"));
  }
}
function togglePlain() {
  const plain = root.dataset.textView !== "plain";
  localStorage.setItem("text-view", plain ? "plain" : "rendered");
  if (plain) root.dataset.textView = "plain";
  else delete root.dataset.textView;
  showPlainButtons();
}
Object.assign(window, { showPlainButtons, togglePlain });

root.classList.add("has-script");
showPlainButtons();
applyTheme(localStorage.getItem("theme"));
document.addEventListener("click", (event) => {
  const choice = event.target.closest("[data-set-theme]");
  if (choice) {
    localStorage.setItem("theme", choice.dataset.setTheme);
    applyTheme(choice.dataset.setTheme);
  }
  if (event.target.closest("[data-toggle-plain]")) togglePlain();
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    navigator.clipboard.writeText(copy.dataset.copy).then(
      () => toast("Copied."),
      () => toast("The browser did not let us copy; select the text by hand.", { error: true }),
    );
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// On a phone the navigation is wider than the screen: the tab of this page comes into sight.
for (const current of document.querySelectorAll(".site-nav [aria-current], .tabs [aria-current]")) {
  const strip = current.parentElement;
  const [tab, view] = [current.getBoundingClientRect(), strip.getBoundingClientRect()];
  strip.scrollLeft += tab.left - view.left - (view.width - tab.width) / 2;
}

// htmx: the sign-in page is no part of a page; whoever is signed out hears of it instead.
document.addEventListener("htmx:beforeSwap", (event) => {
  const address = event.detail.xhr.responseURL;
  if (!address || !new URL(address).pathname.startsWith("/accounts/login")) return;
  event.detail.shouldSwap = false;
  if (!document.querySelector(".toast.signed-out"))
    toast("You are signed out. Sign in again in another window, then go on here.", { error: true }).classList.add(
      "signed-out",
    );
});

// htmx: errors of the server come as messages, not as silence.
document.addEventListener("htmx:responseError", (event) => {
  const request = event.detail.xhr;
  const page = new DOMParser().parseFromString(request.responseText, "text/html");
  const message = page.querySelector("[data-error-message]");
  toast(
    message ? message.textContent.trim() : `The server answered ${request.status}. Reload the page and try again.`,
    { error: true },
  );
});
document.addEventListener("htmx:sendError", () =>
  toast("The server cannot be reached. Nothing is lost; try again in a moment.", { error: true }),
);
