// @ts-check
// A classic script, which the browser runs where it stands, before it paints and before it asks for any other script.
// A module would wait for the whole page: it would paint the wrong theme first, and miss scripts that fail to load.

// Scripts that do not load or that break while the page starts; loaded.js asks for it.
{
  /** @param {ErrorEvent} event */
  const markIncomplete = (event) => {
    const isScript = event.target instanceof HTMLScriptElement;
    if (!isScript && !event.filename?.startsWith(location.origin)) return;
    document.documentElement.classList.add("incomplete");
  };
  document.documentElement.dataset.watched = "";
  window.addEventListener("error", markIncomplete, true);
}

// The theme that the person chose, so that a dark page never flashes white, and how text is shown.
{
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  if (localStorage.getItem("text-view") === "plain") document.documentElement.dataset.textView = "plain";
}
