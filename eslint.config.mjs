import js from "@eslint/js";
import globals from "globals";

export default [
    { linterOptions: { reportUnusedDisableDirectives: "error" } },
    {
        files: ["static/js/*.js"],
        ...js.configs.recommended,
        languageOptions: {
            sourceType: "module",
            globals: { ...globals.browser, htmx: "readonly", Bokeh: "readonly" },
        },
    },
    { files: ["static/js/theme.js"], languageOptions: { sourceType: "script" } }, // it says why
];
