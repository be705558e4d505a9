// Before the first paint: the theme that the person chose, so that a dark page never flashes white.
{
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
