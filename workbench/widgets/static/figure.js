// Draws a plotly figure whole with Plotly.react, which keeps zoom and hidden traces while `uirevision` stays the same.
// plotly.js comes as a trait and is loaded here, because anywidget gives a module two seconds to load, and five
// megabytes take longer than that on a busy machine.
let loading;
function library(model) {
  if (loading) return loading;
  const url = URL.createObjectURL(new Blob([model.get("plotly")], { type: "text/javascript" }));
  loading = import(url).then(() => window.Plotly);
  return loading;
}

function render({ model, el }) {
  const div = document.createElement("div");
  div.className = "wb-plot";
  el.appendChild(div);
  let listening = false;
  const draw = async () => {
    const plotly = await library(model);
    const { data, layout } = JSON.parse(model.get("figure"));
    await plotly.react(div, data, layout, { responsive: true, displaylogo: false });
    if (listening) return;
    listening = true;
    div.on("plotly_click", ({ points }) => {
      const trial = points.map((point) => point.customdata).find((number) => number !== undefined);
      if (trial === undefined) return;
      // The time makes a second click on the same point a change as well.
      model.set("clicked", { trial, at: Date.now() });
      model.save_changes();
    });
  };
  model.on("change:figure", draw);
  const resized = new ResizeObserver(() => {
    if (div.isConnected && div.data) window.Plotly.Plots.resize(div);
  });
  resized.observe(el);
  draw();
  return () => {
    resized.disconnect();
    model.off("change:figure", draw);
    if (div.data) window.Plotly.purge(div);
  };
}

export default { render };
