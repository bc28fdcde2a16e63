// A model as a tree of rows: parts fold, layers are chosen. Every text is set as text, so no name can become markup.
const COLUMNS = [
  ["Part", "part"],
  ["Precision", "precision"],
  ["Inputs → outputs", "width"],
  ["Parameters", "parameters"],
  ["Zeros", "sparsity"],
  ["MACs", "share"],
];
// Columns that stand where there is something to say.
const EXTRA = [
  ["Time", "time_share", "ms_text"],
  ["Sensitivity", "score_share", "score_text"],
];

function make(name, text, css) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (css) made.className = css;
  return made;
}

function bar(share, text) {
  const cell = make("td", undefined, "wb-strip");
  if (share === null) return cell;
  const track = make("span", undefined, "wb-track");
  track.setAttribute("aria-hidden", "true");
  const fill = make("span", undefined, "wb-fill");
  fill.style.width = `${Math.min(100, 100 * share)}%`;
  track.append(fill);
  cell.append(make("span", text), track);
  return cell;
}

function render({ model, el }) {
  const closed = new Set();
  const table = make("table", undefined, "wb-table wb-tree");
  const box = make("div", undefined, "wb-wide wb-tree-box");
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Layers");
  box.append(table);
  el.append(box);

  const draw = () => {
    const rows = JSON.parse(model.get("rows"));
    const extra = EXTRA.filter(([, , text]) => rows.some((row) => row[text]));
    const columns = [...COLUMNS, ...extra];
    const head = make("tr");
    columns.forEach(([title]) => {
      const cell = make("th", title);
      cell.scope = "col";
      head.append(cell);
    });
    const body = make("tbody");
    let hidden = Infinity;
    for (const row of rows) {
      if (row.depth > hidden) continue;
      hidden = Infinity;
      const line = make("tr", undefined, row.layer ? "wb-leaf" : "wb-branch");
      const first = make("th");
      first.scope = "row";
      const button = make("button", row.name, "wb-node");
      button.type = "button";
      button.style.marginLeft = `${16 * row.depth}px`;
      button.title = row.path;
      button.dataset.path = row.path;
      if (row.layer) {
        const chosen = row.path === model.get("selected");
        button.setAttribute("aria-pressed", chosen);
        if (chosen) line.classList.add("wb-mark");
        button.addEventListener("click", () => {
          model.set("selected", row.path);
          model.save_changes();
        });
      } else {
        const open = !closed.has(row.path);
        button.setAttribute("aria-expanded", open);
        if (!open) hidden = row.depth;
        button.addEventListener("click", () => {
          open ? closed.add(row.path) : closed.delete(row.path);
          draw();
          [...body.parentNode.querySelectorAll("button")].find((b) => b.dataset.path === row.path)?.focus();
        });
      }
      first.append(button);
      const kinds = make("td");
      row.precision.forEach(([kind, text]) => kinds.append(make("span", text, `wb-kind wb-kind-${kind.split("_")[0]}`)));
      line.append(first, kinds, make("td", row.width_text), make("td", row.parameters_text));
      line.append(bar(row.sparsity, row.sparsity_text), bar(row.share, row.share_text));
      extra.forEach(([, share, text]) => line.append(bar(row[share], row[text])));
      body.append(line);
    }
    const top = make("thead");
    top.append(head);
    const focused = table.contains(document.activeElement) ? document.activeElement.dataset.path : undefined;
    table.replaceChildren(top, body);
    if (focused) [...table.querySelectorAll("button")].find((b) => b.dataset.path === focused)?.focus();
  };
  model.on("change:rows", draw);
  model.on("change:selected", draw);
  draw();
  return () => {
    model.off("change:rows", draw);
    model.off("change:selected", draw);
  };
}

export default { render };
