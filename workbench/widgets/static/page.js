// What only the page knows: its theme; and what only the page can do: keep the study's name in its address.
function isDark() {
  const { jpThemeLight } = document.body.dataset;
  if (jpThemeLight !== undefined) return jpThemeLight === "false";
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

function render({ model }) {
  const tell = () => {
    model.set("theme", isDark() ? "dark" : "light");
    model.save_changes();
  };
  const keep = () => {
    const study = model.get("study");
    const url = new URL(window.location.href);
    if (!model.get("addressed") || !study || url.searchParams.get("study") === study) return;
    url.searchParams.set("study", study);
    window.history.replaceState(window.history.state, "", url);
  };
  const copy = (message) => {
    if (message.copy === undefined || !navigator.clipboard) return;
    // Refused where the page is not focused or not trusted; the text stands on the page to be selected by hand.
    navigator.clipboard.writeText(message.copy).catch(() => undefined);
  };
  const observer = new MutationObserver(tell);
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  model.on("change:study", keep);
  model.on("msg:custom", copy);
  model.set("query", window.location.search);
  model.set("hello", Date.now());
  tell();
  keep();
  return () => {
    observer.disconnect();
    model.off("change:study", keep);
    model.off("msg:custom", copy);
  };
}

export default { render };
