// What the scripts in static/js find in a page without importing it: the classic scripts that it loads from installed
// packages, and the events of htmx.

interface Htmx {
    process(element: Element): void;
    trigger(element: Element, event: string): void;
}
declare const htmx: Htmx;
declare const Bokeh: any;
interface Window {
    htmx?: Htmx;
    Bokeh?: any;
    SwaggerUIBundle(settings: object): void;
}

// https://htmx.org/events/; each event has some of these properties
interface HtmxDetail {
    elt: HTMLElement;
    target: HTMLElement;
    xhr: XMLHttpRequest;
    requestConfig: { elt: HTMLElement };
    parameters: any;
    headers: Record<string, string>;
    shouldSwap: boolean;
    successful: boolean;
    lengthComputable: boolean;
    loaded: number;
    total: number;
}
type HtmxEvent = CustomEvent<HtmxDetail>;
interface GlobalEventHandlersEventMap {
    "htmx:load": HtmxEvent;
    "htmx:configRequest": HtmxEvent;
    "htmx:beforeRequest": HtmxEvent;
    "htmx:xhr:progress": HtmxEvent;
    "htmx:afterRequest": HtmxEvent;
    "htmx:beforeSwap": HtmxEvent;
    "htmx:afterSwap": HtmxEvent;
    "htmx:afterSettle": HtmxEvent;
    "htmx:responseError": HtmxEvent;
    "htmx:sendError": HtmxEvent;
    "htmx:timeout": HtmxEvent;
}
