"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const root = document.documentElement;
  const hidden = new Set();      // arms not shown
  let sought = [];               // words that a run's row must have
  const shownView = {};          // figure key -> place of its view
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const FONT = { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif", size: 12 };
  // The toolbar has these buttons and no other: newer Plotlys bring some that upload the data.
  const CONFIG = { displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  const PARALLEL_CONFIG = { ...CONFIG, modeBarButtons: [["toImage"]] };
  const CLEAR = "rgba(0,0,0,0)";
  const PRINT_WIDTH = 660;       // CSS pixels of A4 inside its margins
  const PRINT_HEIGHT = 250;      // so that two figures share a page

  // --- figures ---------------------------------------------------------------------------------
  function visible(trace) {
    return !hidden.has(trace.meta && trace.meta.arm);
  }

  function drawView(key) {
    const panels = specs[key].views[shownView[key] || 0].panels;
    const holder = document.querySelector(`[data-figure="${key}"] .panels`);
    all(".panel", holder).forEach(Plotly.purge);
    holder.replaceChildren();
    const elements = panels.map((panel) => {
      const element = document.createElement("div");
      element.className = "panel";
      element.style.minHeight = `${panel.layout.height}px`;
      return element;
    });
    holder.append(...elements);  // all of them, before the first is drawn to the width it has
    for (const [i, panel] of panels.entries()) {
      const element = elements[i];
      const data = panel.data.map((trace) => ({ ...trace, visible: visible(trace) }));
      Plotly.newPlot(element, data, themed(panel.layout), CONFIG);
      boxes.observe(element);
    }
  }

  // A box may change its width at any time: with the window, the view, a scrollbar of the page.
  const boxes = new ResizeObserver((entries) => requestAnimationFrame(() => {
    for (const { target } of entries) {
      const drawn = target.isConnected && !printing && target._fullLayout;
      if (drawn && Math.abs(drawn.width - target.clientWidth) >= 1) Plotly.Plots.resize(target);
    }
  }));
  let printing = false;

  function themed(layout) {
    const modebar = { bgcolor: CLEAR, color: "#808080", activecolor: "#808080" };
    return { ...structuredClone(layout), font: FONT, paper_bgcolor: CLEAR, plot_bgcolor: CLEAR, dragmode: "zoom", modebar };
  }

  function toggleArm(arm) {
    if (!hidden.delete(arm)) hidden.add(arm);
    for (const chip of all(".chip")) {
      chip.setAttribute("aria-pressed", String(!hidden.has(chip.dataset.arm)));
    }
    for (const bar of all(".miss")) bar.hidden = hidden.has(bar.dataset.arm);
    for (const element of all(".panels:not(.parallel) .panel")) {
      Plotly.restyle(element, { visible: element.data.map(visible) });
    }
    if (specs.parallel) drawParallel();
    showRuns();
  }

  // --- parallel coordinates ------------------------------------------------------------------
  const parallel = specs.parallel && specs.parallel.parallel;
  const ranges = {};             // place of a dimension -> ranges kept

  function linesShown() {
    return parallel.runs.map((_, i) => i).filter((i) => !hidden.has(parallel.arms[parallel.arm[i]]));
  }

  const webgl = Boolean(document.createElement("canvas").getContext("webgl"));

  function drawParallel() {
    const element = parallelElement();
    if (!webgl) { drawPlainLines(element); return; }
    const lines = linesShown();
    const count = Math.max(parallel.colors.length - 1, 1);
    const trace = {
      type: "parcoords",
      line: {
        color: lines.map((i) => parallel.arm[i]), cmin: 0, cmax: count,
        colorscale: parallel.colors.length > 1
          ? parallel.colors.map((color, i) => [i / count, color])
          : [[0, parallel.colors[0]], [1, parallel.colors[0]]],
      },
      unselected: { line: { color: "#808080", opacity: 0.06 } },
      labelfont: FONT, tickfont: { ...FONT, size: 11 }, rangefont: { ...FONT, size: 11 },
      dimensions: parallel.dimensions.map((dimension, place) => ({
        ...dimension,
        values: lines.map((i) => dimension.values[i]),
        constraintrange: ranges[place],
      })),
    };
    Plotly.react(element, [trace], themed({ height: 420, margin: { l: 70, r: 60, t: 62, b: 26 } }), PARALLEL_CONFIG);
    if (!element.dataset.listens) {
      element.dataset.listens = "yes";
      element.on("plotly_restyle", readBrushes);
    }
  }

  // Without WebGL (a remote desktop, a hardened browser) the same lines, filtered by the boxes.
  function drawPlainLines(element) {
    const lines = linesShown().filter(kept);
    const spans = parallel.dimensions.map((dimension) => dimension.range);
    const share = (value, [low, high]) => (value - low) / (high - low);
    const traces = parallel.arms.map((arm, place) => {
      const trace = { type: "scatter", mode: "lines", hoverinfo: "skip", x: [], y: [], line: { width: 1, color: parallel.colors[place] } };
      for (const i of lines.filter((line) => parallel.arm[line] === place)) {
        parallel.dimensions.forEach((dimension, axis) => {
          trace.x.push(axis);
          trace.y.push(share(dimension.values[i], spans[axis]));
        });
        trace.x.push(null); // the next run's line does not continue this one's
        trace.y.push(null);
      }
      return trace;
    });
    const annotations = parallel.dimensions.flatMap((dimension, axis) => dimension.tickvals.map((place, i) => ({
      x: axis, y: share(place, spans[axis]), xanchor: "right", showarrow: false,
      text: dimension.ticktext[i], font: { size: 11 },
    })));
    Plotly.react(element, traces, themed({
      height: 420, margin: { l: 70, r: 60, t: 34, b: 40 }, showlegend: false, annotations,
      xaxis: { tickvals: parallel.dimensions.map((_, axis) => axis), ticktext: parallel.dimensions.map((d) => d.label), zeroline: false },
      yaxis: { visible: false, range: [-0.03, 1.03] },
    }), PARALLEL_CONFIG);
  }

  function parallelElement() {
    const holder = document.querySelector('[data-figure="parallel"] .panels');
    if (!holder.firstElementChild) {
      holder.classList.add("parallel");
      holder.append(Object.assign(document.createElement("div"), { className: "panel" }));
      boxes.observe(holder.firstElementChild);
    }
    return holder.firstElementChild;
  }

  function readBrushes() {
    parallelElement().data[0].dimensions.forEach((dimension, place) => {
      const range = dimension.constraintrange;
      if (range && range.length) ranges[place] = Array.isArray(range[0]) ? range : [range];
      else delete ranges[place];
    });
    for (const control of all(".filters [data-place]")) {
      if (document.activeElement !== control && !ranges[control.dataset.place]) control.value = "";
    }
    showRuns();
  }

  function kept(i) {
    return Object.entries(ranges).every(([place, parts]) => {
      const value = parallel.dimensions[place].values[i];
      return parts.some(([low, high]) => value >= low && value <= high);
    });
  }

  function showRuns() {
    const rows = all("#run-table tbody tr").sort((a, b) => a.dataset.place - b.dataset.place);
    const brushed = Object.keys(ranges).length > 0;
    const lines = parallel ? linesShown().filter(kept) : [];
    const keep = new Set(lines.map((i) => parallel.runs[i]));
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = (brushed ? !keep.has(place) : hidden.has(row.dataset.arm)) || !isFound(row);
      shown += !row.hidden;
    });
    document.getElementById("shown").textContent = `${shown} of ${rows.length} run${rows.length === 1 ? "" : "s"} shown.`;
    if (parallel) document.querySelector(".brushed").textContent = brushed
      ? `${lines.length} of ${parallel.runs.length} lines kept; the run table below shows the same runs.` : "";
  }

  function makeFilters() {
    const holder = document.querySelector(".filters");
    parallel.dimensions.forEach((dimension, place) => {
      const label = document.createElement("label");
      const control = dimension.scale ? smallest() : choices(dimension);
      control.dataset.place = place;
      control.addEventListener("change", () => filterBy(place, control.value));
      label.append(dimension.title + (dimension.scale ? " from" : ""), control);
      holder.append(label);
    });
    if (!webgl) holder.append("This browser has no WebGL, so axes cannot be brushed: use the boxes.");
    const clear = document.createElement("button");
    clear.type = "button";
    clear.className = "chip";
    clear.textContent = "Show all runs";
    clear.addEventListener("click", () => {
      for (const place of Object.keys(ranges)) delete ranges[place];
      for (const control of all("[data-place]", holder)) control.value = "";
      drawParallel();
      showRuns();
    });
    holder.append(clear);
  }

  function choices(dimension) {
    const select = document.createElement("select");
    select.append(new Option("any", ""));
    dimension.tickvals.forEach((value, i) => select.append(new Option(dimension.words[i], value)));
    return select;
  }

  function smallest() {
    return Object.assign(document.createElement("input"), { type: "number", step: "any", placeholder: "any" });
  }

  function filterBy(place, text) {
    const dimension = parallel.dimensions[place];
    const value = Number(text);
    if (text === "") delete ranges[place];
    else if (!dimension.scale) ranges[place] = [[value - 0.45, value + 0.45]];
    else ranges[place] = [[value, Math.max(value, ...dimension.values)]];
    drawParallel();
    showRuns();
  }

  // --- tables ----------------------------------------------------------------------------------
  function sortKey(row, column) {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    if (text === "" || text === "–") return null;
    const value = Number(text);
    return Number.isNaN(value) ? text : value;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  }

  function sortBy(heading) {
    const table = heading.closest("table");
    const column = heading.cellIndex;
    const down = heading.getAttribute("aria-sort") === "ascending";
    const rows = [...table.tBodies[0].rows].map((row) => [sortKey(row, column), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // missing values last
      return down ? compare(b, a) : compare(a, b);
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  // --- the run table: search and download ----------------------------------------------------------
  function isFound(row) {
    const text = row.textContent.toLowerCase();
    return sought.every((word) => text.includes(word));
  }

  function search(text) {
    sought = text.toLowerCase().split(/\s+/).filter(Boolean);
    showRuns();
  }

  function download() {           // the rows shown, as they stand
    const line = (cells) => [...cells].map((cell) => {
      const text = cell.textContent.trim();
      const safe = /^[=+\-@]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
      return `"${safe.replaceAll('"', '""')}"`;
    }).join(",");
    const table = document.getElementById("run-table");
    const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
    const lines = [table.tHead.rows[0], ...rows].map((row) => line(row.cells));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = "runs.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // --- theme and paper ---------------------------------------------------------------------------
  function showTheme() {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const button = document.getElementById("theme");
    button.setAttribute("aria-pressed", String(dark));
    button.textContent = dark ? "Light page" : "Dark page";
    return dark;
  }

  function forPaper(start) {
    printing = start;
    for (const element of all(".panel")) {
      const holder = element.parentElement;
      const share = holder.children.length > 1 ? (PRINT_WIDTH - 20) / 2 : PRINT_WIDTH;
      const height = element.layout.height;
      if (start) {
        element.dataset.height = height;
        Plotly.relayout(element, { width: share, height: Math.min(height, PRINT_HEIGHT), autosize: false });
      } else Plotly.relayout(element, { width: null, height: Number(element.dataset.height), autosize: true });
    }
  }

  // --- start -------------------------------------------------------------------------------------
  function start() {
    all("#run-table tbody tr").forEach((row, place) => { row.dataset.place = place; });
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = showTheme() ? "light" : "dark";
      showTheme();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
    showTheme();
    document.getElementById("search").addEventListener("input", (event) => search(event.target.value));
    document.getElementById("download").addEventListener("click", download);
    document.addEventListener("click", (event) => {
      const chip = event.target.closest(".legend .chip");
      if (chip) toggleArm(chip.dataset.arm);
      const heading = event.target.closest("table.sortable thead th");
      if (heading) sortBy(heading);
    });
    for (const select of all("[data-view-of]")) {
      select.addEventListener("change", () => {
        shownView[select.dataset.viewOf] = Number(select.value);
        select.parentElement.querySelector(".printed").textContent = select.selectedOptions[0].textContent;
        drawView(select.dataset.viewOf);
      });
    }
    addEventListener("beforeprint", () => forPaper(true));
    addEventListener("afterprint", () => forPaper(false));
    const waiting = Object.keys(specs);
    (function next() {           // one figure per turn, so that the page answers meanwhile
      const key = waiting.shift();
      if (!key) { root.dataset.drawn = "yes"; return; }
      if (specs[key].parallel) { makeFilters(); drawParallel(); } else drawView(key);
      setTimeout(next);
    })();
  }
  start();
})();
