// @ts-check
// Runs: filters that apply themselves, and charts that follow a run as it goes on.
"use strict";

const NONCE = document.currentScript.nonce;
const EVERY = 3000;
const DASHES = ["solid", [6, 4], [2, 3], [8, 3, 2, 3]];
const COLORS = ["#3b78b5", "#d1662b", "#2f9468", "#9256b8", "#c2404f", "#8a7420", "#3a9aa8", "#b0508f"];

document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-submit-on-change]");
  if (form) form.requestSubmit();
});

// BokehJS puts <style> elements into its shadow roots. The page's policy wants a nonce on each, so each gets it.
function giveStylesTheNonce() {
  const create = document.createElement.bind(document);
  document.createElement = (name, options) => {
    const element = create(name, options);
    if (String(name).toLowerCase() === "style") element.nonce = NONCE;
    return element;
  };
}

function load(address) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.nonce = NONCE;
    script.async = false;
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error(`${address} could not be loaded`)));
    document.head.append(script);
  });
}

class Charts {
  constructor(section) {
    this.section = section;
    this.address = section.dataset.charts;
    this.note = section.querySelector("[data-charts-note]");
    this.drawn = new Map(); // title → {figure, sources: Map(label → source)}
    this.since = 0;
    this.several = (this.address.match(/run=/g) ?? []).length > 1;
  }

  async start() {
    if (await this.update()) this.again();
  }

  again() {
    setTimeout(async () => {
      let active = true;
      if (!document.hidden) {
        try {
          active = await this.update();
        } catch (error) {
          console.warn("charts wait for the server:", error.message);
        }
      }
      if (active) this.again();
    }, EVERY);
  }

  // Fetch the points since the last look, and draw them. Resolves to whether there will be more.
  async update() {
    const response = await fetch(`${this.address}&since=${this.since}`, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const { charts, active } = await response.json();
    if (charts.length) {
      await this.prepare();
      this.note.hidden = true;
    }
    for (const chart of charts) {
      for (const series of chart.series) {
        this.points(chart, series);
        // the last step is asked for again: more of its metrics may have come
        this.since = Math.max(this.since, series.step.at(-1) ?? 0);
      }
    }
    return active;
  }

  async prepare() {
    if (window.Bokeh) return;
    giveStylesTheNonce();
    for (const address of this.section.dataset.bokeh.split(" ")) await load(address);
    Bokeh.set_log_level("warn");
    new MutationObserver(() => this.restyle()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.restyle());
  }

  points(chart, series) {
    const drawn = this.drawn.get(chart.title) ?? this.draw(chart);
    const source = drawn.sources.get(series.label) ?? this.line(drawn, series);
    const { data } = source;
    const known = new Map(data.step.map((step, place) => [step, [data.x[place], data.value[place]]]));
    const across = series.x ?? series.step; // most points lie at their steps
    series.step.forEach((step, place) => known.set(step, [across[place] ?? NaN, series.value[place] ?? NaN]));
    const steps = [...known.keys()].sort((a, b) => a - b);
    source.data = {
      step: steps,
      x: steps.map((step) => known.get(step)[0]),
      value: steps.map((step) => known.get(step)[1]),
    };
    drawn.table.textContent = this.inWords(chart.title, drawn);
  }

  draw(chart) {
    const grids = this.section.querySelectorAll(".chart-grid");
    const more = this.section.querySelector(".more-charts");
    const place = document.createElement("figure");
    place.className = "chart card";
    const caption = document.createElement("figcaption");
    caption.textContent = chart.title;
    if (chart.unit) {
      const unit = document.createElement("span");
      unit.className = "quiet small";
      unit.textContent = ` ${chart.unit}`;
      caption.append(unit);
    }
    const canvas = document.createElement("div");
    canvas.className = "chart-canvas";
    canvas.role = "group"; // Bokeh puts what can take the focus into it, so it may not be hidden from anybody
    canvas.ariaLabel = `Chart of ${chart.title}`;
    const table = document.createElement("p");
    table.className = "visually-hidden";
    const keys = document.createElement("div");
    keys.className = "chart-keys";
    keys.hidden = true;
    place.append(caption, keys, canvas, table);
    grids[chart.open ? 0 : 1].append(place);
    if (!chart.open) more.hidden = false;
    const figure = Bokeh.Plotting.figure({
      height: 230,
      sizing_mode: "stretch_width",
      tools: "pan,xwheel_zoom,box_zoom,reset,save",
      toolbar_location: null,
      x_axis_label: chart.across ?? "step",
      output_backend: "canvas",
      min_border: 4,
    });
    const drawn = { figure, sources: new Map(), table, keys, names: [] };
    this.drawn.set(chart.title, drawn);
    this.style(figure);
    const hover = new Bokeh.HoverTool({
      tooltips: [
        ["", "$name"],
        ["step", "@step"],
        ["value", "@value{%.4g}"],
      ],
      formatters: { "@value": "printf" },
      mode: "mouse",
    });
    figure.add_tools(hover);
    Bokeh.Plotting.show(figure, canvas);
    return drawn;
  }

  // Runs differ by color where there are several, else metrics do; then metrics differ by dashes.
  line(drawn, series) {
    const source = new Bokeh.ColumnDataSource({ data: { step: [], x: [], value: [] } });
    const names = [...new Set([...drawn.names, series.name])];
    drawn.names = names;
    const metric = names.indexOf(series.name);
    const color = COLORS[(this.several ? series.run : metric) % COLORS.length];
    const common = { source, color, name: series.label };
    const dash = this.several ? DASHES[metric % DASHES.length] : "solid";
    const curve = drawn.figure.line({ field: "x" }, { field: "value" }, { ...common, line_width: 2, line_dash: dash });
    const dots = drawn.figure.scatter({ field: "x" }, { field: "value" }, { ...common, size: 4 });
    drawn.sources.set(series.label, source);
    this.key(drawn, series.label, color, dash, [curve, dots]);
    return source;
  }

  // An entry of the legend, which is HTML, so that it wraps and never covers the curves; it hides its curve.
  key(drawn, label, color, dash, renderers) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chart-key";
    button.setAttribute("aria-pressed", "true");
    const swatch = document.createElement("span");
    swatch.style.borderTop = `3px ${dash === "solid" ? "solid" : "dashed"} ${color}`;
    button.append(swatch, label);
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      for (const renderer of renderers) renderer.visible = shown;
    });
    drawn.keys.append(button);
    drawn.keys.hidden = drawn.keys.children.length < 2;
  }

  inWords(title, drawn) {
    const last = [...drawn.sources].map(([label, source]) => {
      const value = source.data.value.at(-1);
      return value == null
        ? `${label}: no value`
        : `${label}: ${Number(value.toPrecision(4))} at step ${source.data.step.at(-1)}`;
    });
    return `${title}. ${last.join("; ")}`;
  }

  restyle() {
    for (const { figure } of this.drawn.values()) this.style(figure);
  }

  // Bokeh draws on a canvas, which no style sheet reaches: the page's colors are handed over.
  style(figure) {
    const quiet = getComputedStyle(this.section.querySelector(".quiet")).color;
    Object.assign(figure, { background_fill_alpha: 0, border_fill_alpha: 0, outline_line_alpha: 0 });
    for (const axis of [...figure.xaxis, ...figure.yaxis]) {
      Object.assign(axis, {
        axis_line_color: quiet,
        major_tick_line_color: quiet,
        minor_tick_line_alpha: 0,
        major_label_text_color: quiet,
        axis_label_text_color: quiet,
        axis_label_text_font_style: "normal",
        major_label_text_font_size: "12px",
        axis_label_text_font_size: "12px",
      });
    }
    for (const grid of [...figure.xgrid, ...figure.ygrid])
      Object.assign(grid, { grid_line_color: quiet, grid_line_alpha: 0.18 });
  }
}

for (const section of document.querySelectorAll("[data-charts]")) {
  const charts = new Charts(section);
  charts.start().catch((error) => {
    charts.note.hidden = false;
    charts.note.textContent = `The charts cannot be drawn: ${error.message}.`;
  });
}
