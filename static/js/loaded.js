// @ts-check
// The last of a page's scripts. Where all of them have loaded and started, it takes away the notice that some have not.
// Modules run before DOMContentLoaded, and one whose imports fail to load reports an error in its place.

document.addEventListener("DOMContentLoaded", () => {
  const { classList, dataset } = document.documentElement;
  if ("watched" in dataset && !classList.contains("incomplete")) document.getElementById("load-notice").remove();
});
