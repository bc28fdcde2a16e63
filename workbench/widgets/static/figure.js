// Draws a plotly figure whole with Plotly.react, which keeps zoom and hidden traces while `uirevision` stays the same.
// plotly.js is asked for by a message, once in a page: anywidget gives a module two seconds to load, and five megabytes
// take longer than that on a busy machine; and every figure with a copy of its own would be five megabytes more.
const SHARED = "__workbenchPlotly";

function library(model) {
  if (!window[SHARED]) {
    const shared = { asked: false };
    shared.promise = new Promise((resolve, reject) => Object.assign(shared, { resolve, reject }));
    window[SHARED] = shared;
  }
  const shared = window[SHARED];
  const take = (message) => {
    if (message.plotly === undefined) return;
    model.off("msg:custom", take);
    if (shared.came) return;
    shared.came = true;
    const url = URL.createObjectURL(new Blob([message.plotly], { type: "text/javascript" }));
    import(url).then(() => shared.resolve(window.Plotly), shared.reject);
  };
  if (!shared.came) {
    model.on("msg:custom", take);
    const ask = () => !shared.came && model.send({ ask: "plotly" });
    // The figure that asked first may have been closed before the answer came.
    if (shared.asked) setTimeout(ask, 8000);
    else ask();
    shared.asked = true;
  }
  return shared.promise;
}

function save(href, name) {
  const link = document.createElement("a");
  link.href = href;
  link.download = name;
  link.click();
}

// The nearest background that is not see-through: a picture of light text on nothing could not be read.
function background(element) {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (colour && !/rgba\(.*, 0\)|transparent/.test(colour)) return colour;
  }
  return "white";
}

function render({ model, el }) {
  const div = document.createElement("div");
  div.className = "wb-plot";
  const bar = document.createElement("div");
  bar.className = "wb-downloads";
  el.append(div, bar);
  let plotly;
  let listening = false;

  const picture = async (format) => {
    if (!plotly || !div.data) return;
    const { width, height } = div.getBoundingClientRect();
    const layout = { ...div.layout, paper_bgcolor: background(el), autosize: false, width, height };
    const scale = format === "png" ? 2 : 1;
    const href = await plotly.toImage({ data: div.data, layout }, { format, width, height, scale });
    save(href, `${model.get("name")}.${format}`);
  };
  const button = (text, hint, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "wb-save";
    made.textContent = text;
    made.title = hint;
    made.setAttribute("aria-label", hint);
    made.addEventListener("click", act);
    bar.append(made);
  };
  button("PNG", "Save this figure as PNG", () => picture("png"));
  button("SVG", "Save this figure as SVG", () => picture("svg"));
  if (model.get("has_csv")) button("CSV", "Save the table of this figure as CSV", () => model.send({ ask: "csv" }));
  const take = (message) => {
    if (message.csv === undefined) return;
    const url = URL.createObjectURL(new Blob([message.csv], { type: "text/csv" }));
    save(url, `${message.name}.csv`);
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };
  model.on("msg:custom", take);

  const numbers = (points) => points.map((point) => point.customdata).filter((number) => number !== undefined);
  const draw = async () => {
    plotly = await library(model);
    const { data, layout } = JSON.parse(model.get("figure"));
    // A figure with a row for every layer says how high it is.
    div.style.height = layout.height ? `${layout.height}px` : "";
    const texts = model.get("texts");
    for (const trace of data)
      if (trace.customdata && Object.keys(texts).length)
        trace.hovertext = trace.customdata.map((number) => texts[number] ?? "");
    div.setAttribute("role", "group");
    div.setAttribute("aria-label", model.get("label") || "Figure");
    // Nothing of a study leaves the machine: plotly's own button would send the figure to a server of its makers.
    const own = { showSendToCloud: false, modeBarButtonsToRemove: ["toImage", "sendChartToCloud"] };
    const config = { responsive: true, displaylogo: false, ...own };
    await plotly.react(div, data, layout, config);
    if (listening) return;
    listening = true;
    // The time makes a second click on the same point a change as well.
    div.on("plotly_click", ({ points }) => {
      const trial = numbers(points)[0];
      if (trial === undefined) return;
      model.set("clicked", { trial, at: Date.now() });
      model.save_changes();
    });
    const choose = (trials) => {
      model.set("chosen", { trials, at: Date.now() });
      model.save_changes();
    };
    div.on("plotly_selected", (event) => event && choose([...new Set(numbers(event.points))]));
    div.on("plotly_deselect", () => choose([]));
  };
  model.on("change:figure", draw);
  model.on("change:texts", draw);
  const resized = new ResizeObserver(() => {
    if (div.isConnected && div.data) window.Plotly.Plots.resize(div);
  });
  resized.observe(el);
  draw();
  return () => {
    resized.disconnect();
    model.off("change:figure", draw);
    model.off("change:texts", draw);
    model.off("msg:custom", take);
    if (div.data) window.Plotly.purge(div);
  };
}

export default { render };
