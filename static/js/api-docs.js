// @ts-check
// The API reference: Swagger UI over our own schema. Requests without a token go with the person's session.
"use strict";

window.addEventListener("DOMContentLoaded", () => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const followTheme = () => {
    const chosen = document.documentElement.dataset.theme;
    document.documentElement.classList.toggle("dark-mode", chosen ? chosen === "dark" : dark.matches);
  };
  followTheme();
  dark.addEventListener("change", followTheme);
  new MutationObserver(followTheme).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  const element = document.getElementById("api-docs");
  const headers = JSON.parse(document.body.getAttribute("hx-headers"));
  window.SwaggerUIBundle({
    domNode: element,
    url: element.dataset.schema,
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    supportedSubmitMethods: ["get", "post", "put", "patch", "delete"],
    validatorUrl: null,
    requestInterceptor: (request) => {
      if (!request.headers.Authorization) Object.assign(request.headers, headers);
      return request;
    },
  });
});
