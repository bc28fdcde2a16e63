// A button that folds something away and says so: `aria-expanded`, which a plain toggle has not.
function render({ model, el }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "wb-fold";
  const label = document.createElement("span");
  const note = document.createElement("span");
  note.className = "wb-fold-note";
  button.append(label, note);
  el.appendChild(button);
  const show = () => {
    label.textContent = model.get("label");
    note.textContent = model.get("note");
    button.title = model.get("hint");
    button.disabled = model.get("disabled");
    button.setAttribute("aria-expanded", String(model.get("unfolded")));
  };
  button.addEventListener("click", () => {
    model.set("unfolded", !model.get("unfolded"));
    model.save_changes();
  });
  model.on("change", show);
  show();
  return () => model.off("change", show);
}

export default { render };
