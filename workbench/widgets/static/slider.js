// A slider of the browser's own with a field for the number beside it. Both carry the label: ipywidgets' slider has no
// accessible name. While it is dragged, only the newest value is sent, at most one in 60 ms.
let count = 0;

function render({ model, el }) {
  const id = `wb-slider-${(count += 1)}-${Math.random().toString(36).slice(2)}`;
  const row = document.createElement("div");
  row.className = "wb-slider";
  const label = document.createElement("label");
  label.htmlFor = id;
  const range = document.createElement("input");
  range.type = "range";
  range.id = id;
  const field = document.createElement("input");
  field.type = "number";
  const unit = document.createElement("span");
  unit.className = "wb-unit";
  row.append(label, range, field, unit);
  el.appendChild(row);

  const show = () => {
    const [low, high, step] = ["low", "high", "step"].map((name) => model.get(name));
    label.textContent = model.get("label");
    row.title = model.get("hint");
    unit.textContent = model.get("unit");
    Object.assign(range, { min: low, max: high, step });
    Object.assign(field, { min: low, max: model.get("most") ?? high, step: "any" });
    field.setAttribute("aria-label", `${model.get("label")}, number`);
    range.setAttribute("aria-valuetext", `${model.get("value")} ${model.get("unit")}`);
    range.value = model.get("value");
    if (document.activeElement !== field) field.value = String(Number(model.get("value").toPrecision(4)));
    range.disabled = field.disabled = model.get("disabled");
  };
  let waiting = null;
  const send = (value) => {
    if (!Number.isFinite(value)) return;
    field.value = String(value);
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      model.set("value", value);
      model.save_changes();
    }, 60);
  };
  range.addEventListener("input", () => send(Number(range.value)));
  field.addEventListener("change", () => send(field.value === "" ? NaN : Number(field.value)));
  model.on("change", show);
  show();
  return () => {
    clearTimeout(waiting);
    model.off("change", show);
  };
}

export default { render };
