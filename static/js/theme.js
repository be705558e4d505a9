// @ts-check
// Scripts that do not load or that break while the page starts; loaded.js asks for it.
{
  const mark = (event) => {
    const isScript = event.target instanceof HTMLScriptElement;
    if (!isScript && !event.filename?.startsWith(location.origin)) return;
    document.documentElement.classList.add("incomplete");
  };
  document.documentElement.dataset.watched = "";
  window.addEventListener("error", mark, true);
}

// Before the first paint: the theme that the person chose, so that a dark page never flashes white, and how text is shown.
{
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  if (localStorage.getItem("text-view") === "plain") document.documentElement.dataset.textView = "plain";
}
