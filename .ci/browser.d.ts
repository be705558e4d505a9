// What the scripts in static/js may assume of a page: elements are found by their ids and classes, and have the
// properties that our templates give them. Events carry what htmx and our own scripts put into them.

declare const htmx: any;
declare const Bokeh: any;
interface Window {
    htmx: any;
    Bokeh: any;
    SwaggerUIBundle: any;
}
interface Document {
    getElementById(id: string): any;
}
interface ParentNode {
    querySelector(selectors: string): any;
    querySelectorAll(selectors: string): NodeListOf<any>;
}
interface Element {
    closest(selectors: string): any;
}
interface EventTarget {
    [property: string]: any;
}
interface Event {
    readonly detail: any;
}
