// @ts-check
// What every page has: the theme, menus that close, forms that ask before they act, errors that are shown.

import { closestElement, eventElement, findElement, findElements } from "./dom.js";
import { markPlainTextButtons, togglePlainText } from "./plain-text.js";
import { showToast } from "./toast.js";

const root = document.documentElement;

/** @param {string | null} theme "light", "dark", or anything else for the system's */
function applyTheme(theme) {
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  else delete root.dataset.theme;
  for (const button of findElements("[data-set-theme]")) {
    button.setAttribute("aria-pressed", String((theme || "auto") === button.dataset.setTheme));
  }
}

// The server shows times in this zone, unless the person chose another in their profile.
function keepTimeZone() {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (!zone || document.cookie.split("; ").includes(`time_zone=${zone}`)) return;
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `time_zone=${zone}; path=/; max-age=31536000; samesite=lax${secure}`;
}

/** @param {string} text */
function copyText(text) {
  navigator.clipboard.writeText(text).then(
    () => showToast("Copied."),
    () => showToast("The browser did not let us copy; select the text by hand.", { error: true }),
  );
}

/** @returns {NodeListOf<HTMLDetailsElement>} */
function openMenus() {
  return document.querySelectorAll("details.menu[open]");
}

// On a phone the navigation is wider than the screen: the tab of this page comes into sight.
function showCurrentTabs() {
  for (const current of findElements(".site-nav [aria-current], .tabs [aria-current]")) {
    const strip = current.parentElement;
    const [tab, view] = [current.getBoundingClientRect(), strip.getBoundingClientRect()];
    strip.scrollLeft += tab.left - view.left - (view.width - tab.width) / 2;
  }
}

document.addEventListener("click", (event) => {
  const themeButton = closestElement(event, "[data-set-theme]");
  if (themeButton) {
    localStorage.setItem("theme", themeButton.dataset.setTheme);
    applyTheme(themeButton.dataset.setTheme);
  }
  if (closestElement(event, "[data-toggle-plain]")) togglePlainText();
  const copyButton = closestElement(event, "[data-copy]");
  if (copyButton) copyText(copyButton.dataset.copy);
  for (const menu of openMenus()) {
    if (!menu.contains(eventElement(event))) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of openMenus()) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
document.addEventListener("submit", (event) => {
  const question = eventElement(event).dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// htmx: the sign-in page is no part of a page; whoever is signed out hears of it instead.
document.addEventListener("htmx:beforeSwap", (event) => {
  const address = event.detail.xhr.responseURL;
  if (!address || !new URL(address).pathname.startsWith("/accounts/login")) return;
  event.detail.shouldSwap = false;
  if (findElement(".toast.signed-out")) return;
  const text = "You are signed out. Sign in again in another window, then go on here.";
  showToast(text, { error: true }).classList.add("signed-out");
});

// htmx: errors of the server come as messages, not as silence.
document.addEventListener("htmx:responseError", (event) => {
  const request = event.detail.xhr;
  const page = new DOMParser().parseFromString(request.responseText, "text/html");
  const message = page.querySelector("[data-error-message]");
  const text = message?.textContent.trim() ?? `The server answered ${request.status}. Reload the page and try again.`;
  showToast(text, { error: true });
});
document.addEventListener("htmx:sendError", () =>
  showToast("The server cannot be reached. Nothing is lost; try again in a moment.", { error: true }),
);

keepTimeZone();
root.classList.add("has-script");
markPlainTextButtons();
applyTheme(localStorage.getItem("theme"));
showCurrentTabs();
