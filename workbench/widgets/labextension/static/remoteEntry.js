// A tile and a command "Compression Workbench" for JupyterLab: a new notebook with the dashboard in its one cell.
//
// Written as what a bundler would make of it (a module federation container: `init` is handed what JupyterLab shares,
// `get` gives the plug-in), so that nobody has to build anything.
(() => {
  const NAME = "compression-workbench";
  const CELL = "from workbench.widgets.dashboard import Dashboard\n\nDashboard()";
  const ICON =
    '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 16 16"><g class="jp-icon3" fill="none" ' +
    'stroke="#616161" stroke-width="1.4"><path d="M2 2v12h12"/><path d="M4.5 4.5c.6 4 2.8 6.6 7.5 7.2"/></g>' +
    '<g class="jp-icon3" fill="#616161"><circle cx="5" cy="6.4" r="1.4"/><circle cx="7.8" cy="10" r="1.4"/></g></svg>';
  let shared = {};

  async function fromLab(name) {
    const versions = shared[name] || {};
    const entry = Object.values(versions).find((one) => one.loaded) || Object.values(versions)[0];
    return entry ? (await entry.get())() : {};
  }

  async function plugin() {
    const [{ ILauncher }, { ICommandPalette }, { LabIcon }] = await Promise.all(
      ["@jupyterlab/launcher", "@jupyterlab/apputils", "@jupyterlab/ui-components"].map(fromLab),
    );
    return {
      id: `${NAME}:open`,
      description: "Opens the compression workbench.",
      autoStart: true,
      optional: [ILauncher, ICommandPalette].filter(Boolean),
      activate: (app, ...services) => {
        const command = `${NAME}:open`;
        app.commands.addCommand(command, {
          label: "Compression Workbench",
          caption: "Make a transformer smaller and faster, and see what it costs",
          icon: LabIcon && new LabIcon({ name: `${NAME}:icon`, svgstr: ICON }),
          execute: async ({ cwd } = {}) => {
            const panel = await app.commands.execute("notebook:create-new", { cwd, kernelName: "python3" });
            await panel.context.ready;
            await panel.sessionContext.ready;
            panel.content.activeCell.model.sharedModel.setSource(CELL);
            // Saved at once: a reload of the page would leave an empty notebook.
            await panel.context.save();
            await app.commands.execute("notebook:run-cell");
          },
        });
        for (const service of services.filter(Boolean)) {
          if ("addItem" in service) {
            // The launcher has `add`, the palette `addItem`.
            service.addItem({ command, category: "Notebook Operations" });
          } else {
            service.add({ command, category: "Other", rank: 0 });
          }
        }
      },
    };
  }

  const container = {
    init: (scope) => {
      shared = scope;
    },
    get: async () => {
      const made = await plugin();
      return () => ({ __esModule: true, default: made });
    },
  };
  (window._JUPYTERLAB = window._JUPYTERLAB || {})[NAME] = container;
})();
