// Before the first paint: the theme that the person chose, so that a dark page never flashes white, and how text is shown.
{
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  if (localStorage.getItem("text-view") === "plain") document.documentElement.dataset.textView = "plain";
}
