// @ts-check
// One chart of a run's metrics, drawn by BokehJS, with its legend and its newest values in words.

const DASHES = ["solid", [6, 4], [2, 3], [8, 3, 2, 3]];
const COLORS = ["#3b78b5", "#d1662b", "#2f9468", "#9256b8", "#c2404f", "#8a7420", "#3a9aa8", "#b0508f"];

/**
 * What the server sends of a chart, and of each of its curves.
 * @typedef {{ title: string, unit?: string, open: boolean, across?: string, series: Series[] }} ChartData
 * @typedef {{ label: string, name: string, run: number, step: number[], x?: number[], value: (number | null)[] }} Series
 *   `x` is missing where points lie at their steps
 */

/**
 * @param {string} name
 * @param {string} className
 */
function createElement(name, className) {
  const element = document.createElement(name);
  element.className = className;
  return element;
}

export class Chart {
  /**
   * @param {ChartData} data
   * @param {boolean} hasSeveralRuns
   */
  constructor({ title, unit, across }, hasSeveralRuns) {
    this.title = title;
    this.hasSeveralRuns = hasSeveralRuns;
    this.sources = new Map(); // label → source of its curve
    /** @type {string[]} */
    this.metrics = [];
    this.element = createElement("figure", "chart card");
    this.legend = createElement("div", "chart-keys");
    this.legend.hidden = true;
    this.canvas = createElement("div", "chart-canvas");
    this.canvas.role = "group"; // Bokeh puts what can take the focus into it, so it may not be hidden from anybody
    this.canvas.ariaLabel = `Chart of ${title}`;
    this.valuesInWords = createElement("p", "visually-hidden");
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    if (unit) {
      const unitText = createElement("span", "quiet small");
      unitText.textContent = ` ${unit}`;
      caption.append(unitText);
    }
    this.element.append(caption, this.legend, this.canvas, this.valuesInWords);
    this.figure = Bokeh.Plotting.figure({
      height: 230,
      sizing_mode: "stretch_width",
      tools: "pan,xwheel_zoom,box_zoom,reset,save",
      toolbar_location: null,
      x_axis_label: across ?? "step",
      output_backend: "canvas",
      min_border: 4,
    });
  }

  /** Draw it, once its element is on the page. */
  show() {
    const hover = new Bokeh.HoverTool({
      tooltips: [
        ["", "$name"],
        ["step", "@step"],
        ["value", "@value{%.4g}"],
      ],
      formatters: { "@value": "printf" },
      mode: "mouse",
    });
    this.figure.add_tools(hover);
    Bokeh.Plotting.show(this.figure, this.canvas);
  }

  /**
   * Add points to a curve. A step that is there already takes its newest values.
   * @param {Series} series
   */
  addPoints(series) {
    const source = this.sources.get(series.label) ?? this.addCurve(series);
    const { data } = source;
    const points = new Map();
    data.step.forEach((/** @type {number} */ step, /** @type {number} */ place) =>
      points.set(step, [data.x[place], data.value[place]]),
    );
    const across = series.x ?? series.step;
    series.step.forEach((step, place) => points.set(step, [across[place] ?? NaN, series.value[place] ?? NaN]));
    const steps = [...points.keys()].sort((a, b) => a - b);
    source.data = {
      step: steps,
      x: steps.map((step) => points.get(step)[0]),
      value: steps.map((step) => points.get(step)[1]),
    };
    this.valuesInWords.textContent = this.describeValues();
  }

  /**
   * Runs differ by color where there are several, else metrics do; then metrics differ by dashes.
   * @param {Series} series
   */
  addCurve({ label, name, run }) {
    const source = new Bokeh.ColumnDataSource({ data: { step: [], x: [], value: [] } });
    if (!this.metrics.includes(name)) this.metrics.push(name);
    const metric = this.metrics.indexOf(name);
    const color = COLORS[(this.hasSeveralRuns ? run : metric) % COLORS.length];
    const dash = this.hasSeveralRuns ? DASHES[metric % DASHES.length] : "solid";
    const common = { source, color, name: label };
    const curve = this.figure.line({ field: "x" }, { field: "value" }, { ...common, line_width: 2, line_dash: dash });
    const dots = this.figure.scatter({ field: "x" }, { field: "value" }, { ...common, size: 4 });
    this.sources.set(label, source);
    this.addLegendEntry(label, `3px ${dash === "solid" ? "solid" : "dashed"} ${color}`, [curve, dots]);
    return source;
  }

  /**
   * An entry of the legend, which is HTML, so that it wraps and never covers the curves; it hides its curve.
   * @param {string} label
   * @param {string} line as CSS writes a border
   * @param {{ visible: boolean }[]} renderers
   */
  addLegendEntry(label, line, renderers) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chart-key";
    button.setAttribute("aria-pressed", "true");
    const swatch = document.createElement("span");
    swatch.style.borderTop = line;
    button.append(swatch, label);
    button.addEventListener("click", () => {
      const isShown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isShown));
      for (const renderer of renderers) renderer.visible = isShown;
    });
    this.legend.append(button);
    this.legend.hidden = this.legend.children.length < 2;
  }

  describeValues() {
    const newest = [...this.sources].map(([label, { data }]) => {
      const value = data.value.at(-1);
      return value == null
        ? `${label}: no value`
        : `${label}: ${Number(value.toPrecision(4))} at step ${data.step.at(-1)}`;
    });
    return `${this.title}. ${newest.join("; ")}`;
  }

  /**
   * Bokeh draws on a canvas, which no style sheet reaches: the page's colors are handed over.
   * @param {string} color
   */
  applyColor(color) {
    Object.assign(this.figure, { background_fill_alpha: 0, border_fill_alpha: 0, outline_line_alpha: 0 });
    for (const axis of [...this.figure.xaxis, ...this.figure.yaxis]) {
      Object.assign(axis, {
        axis_line_color: color,
        major_tick_line_color: color,
        minor_tick_line_alpha: 0,
        major_label_text_color: color,
        axis_label_text_color: color,
        axis_label_text_font_style: "normal",
        major_label_text_font_size: "12px",
        axis_label_text_font_size: "12px",
      });
    }
    for (const grid of [...this.figure.xgrid, ...this.figure.ygrid])
      Object.assign(grid, { grid_line_color: color, grid_line_alpha: 0.18 });
  }
}
