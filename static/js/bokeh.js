// @ts-check
// BokehJS, loaded when a page has something to draw.

// A script's nonce can be read from the element alone; the attribute is hidden. See docs/decisions/live-charts.md.
/** @type {HTMLScriptElement} */
const scriptWithNonce = document.querySelector("script[nonce]");
const { nonce } = scriptWithNonce;

// BokehJS puts <style> elements into its shadow roots. The page's policy wants a nonce on each, so each gets it.
function giveStylesTheNonce() {
  const createElement = document.createElement.bind(document);
  document.createElement = (/** @type {string} */ name, /** @type {ElementCreationOptions} */ options) => {
    const element = createElement(name, options);
    if (String(name).toLowerCase() === "style") element.nonce = nonce;
    return element;
  };
}

/** @param {string} address */
function loadScript(address) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.nonce = nonce;
    script.async = false;
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error(`${address} could not be loaded`)));
    document.head.append(script);
  });
}

/**
 * Load BokehJS, unless it is there already. It is then the global `Bokeh`.
 * @param {string[]} addresses its scripts, in their order
 */
export async function loadBokeh(addresses) {
  if (window.Bokeh) return;
  giveStylesTheNonce();
  for (const address of addresses) await loadScript(address);
  Bokeh.set_log_level("warn");
}
