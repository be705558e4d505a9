// @ts-check
// Runs: filters that apply themselves, and charts that follow a run as it goes on.

import { loadBokeh } from "./bokeh.js";
import { Chart } from "./chart.js";
import { closestElement, findElement, findElements } from "./dom.js";

/** @import { ChartData } from "./chart.js" */

const UPDATE_EVERY = 3000; // ms

document.addEventListener("change", (event) => {
  /** @type {HTMLFormElement} */ (closestElement(event, "form[data-submit-on-change]"))?.requestSubmit();
});

class ChartSection {
  /** @param {HTMLElement} section */
  constructor(section) {
    this.section = section;
    this.address = section.dataset.charts;
    this.note = findElement("[data-charts-note]", section);
    /** @type {Map<string, Chart>} */
    this.charts = new Map();
    this.newestStep = 0;
    this.hasSeveralRuns = (this.address.match(/run=/g) ?? []).length > 1;
  }

  async start() {
    if (await this.update()) this.scheduleUpdate();
  }

  scheduleUpdate() {
    setTimeout(async () => {
      let isActive = true;
      if (!document.hidden) {
        try {
          isActive = await this.update();
        } catch (error) {
          console.warn("charts wait for the server:", error.message);
        }
      }
      if (isActive) this.scheduleUpdate();
    }, UPDATE_EVERY);
  }

  /**
   * Fetch the points since the last look, and draw them.
   * @returns {Promise<boolean>} whether there will be more
   */
  async update() {
    const address = `${this.address}&since=${this.newestStep}`;
    const response = await fetch(address, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(`status ${response.status}`);
    /** @type {{ charts: ChartData[], active: boolean }} */
    const { charts, active } = await response.json();
    if (charts.length) {
      await this.prepare();
      this.note.hidden = true;
    }
    for (const data of charts) {
      const chart = this.charts.get(data.title) ?? this.addChart(data);
      for (const series of data.series) {
        chart.addPoints(series);
        // the last step is asked for again: more of its metrics may have come
        this.newestStep = Math.max(this.newestStep, series.step.at(-1) ?? 0);
      }
    }
    return active;
  }

  async prepare() {
    if (window.Bokeh) return;
    await loadBokeh(this.section.dataset.bokeh.split(" "));
    const restyle = () => this.applyColors();
    new MutationObserver(restyle).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  }

  /** @param {ChartData} data */
  addChart(data) {
    const chart = new Chart(data, this.hasSeveralRuns);
    const [grid, gridOfMore] = findElements(".chart-grid", this.section);
    (data.open ? grid : gridOfMore).append(chart.element);
    if (!data.open) findElement(".more-charts", this.section).hidden = false;
    this.charts.set(data.title, chart);
    chart.applyColor(this.quietColor());
    chart.show();
    return chart;
  }

  applyColors() {
    for (const chart of this.charts.values()) chart.applyColor(this.quietColor());
  }

  quietColor() {
    return getComputedStyle(this.section.querySelector(".quiet")).color;
  }
}

for (const section of findElements("[data-charts]")) {
  const charts = new ChartSection(section);
  charts.start().catch((error) => {
    charts.note.hidden = false;
    charts.note.textContent = `The charts cannot be drawn: ${error.message}.`;
  });
}
