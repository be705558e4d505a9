// @ts-check
// The API reference: Swagger UI over our own schema. Requests without a token go with the person's session.

const darkScheme = window.matchMedia("(prefers-color-scheme: dark)");

function followTheme() {
  const { dataset, classList } = document.documentElement;
  classList.toggle("dark-mode", dataset.theme ? dataset.theme === "dark" : darkScheme.matches);
}

/** @param {{ headers: Record<string, string> }} request */
function addSessionHeaders(request) {
  const headers = JSON.parse(document.body.getAttribute("hx-headers"));
  if (!request.headers.Authorization) Object.assign(request.headers, headers);
  return request;
}

followTheme();
darkScheme.addEventListener("change", followTheme);
new MutationObserver(followTheme).observe(document.documentElement, { attributeFilter: ["data-theme"] });
const element = document.getElementById("api-docs");
window.SwaggerUIBundle({
  domNode: element,
  url: element.dataset.schema,
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  supportedSubmitMethods: ["get", "post", "put", "patch", "delete"],
  validatorUrl: null,
  requestInterceptor: addSessionHeaders,
});
