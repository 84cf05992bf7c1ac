"use strict";
// Draws the plots of the page in the colours of the day or of the night.
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const night = matchMedia("(prefers-color-scheme: dark)");
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Names of colours, where a specification has a colour or a range of them.
  const painted = (value, key) => {
    if (Array.isArray(value)) return value.map(each => painted(each, key));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, name === "values" ? each : painted(each, name)]));
    return (key === "range" || key === "color") && typeof value === "string" ? colour("--c-" + value) || value : value;
  };

  const config = () => {
    const [ink, soft, line] = ["--ink", "--soft", "--line"].map(colour);
    const font = getComputedStyle(document.body).fontFamily;
    return {
      background: null, font, view: { stroke: null }, mark: { color: colour("--c-ours") },
      axis: { labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 11.5, titleFontSize: 11.5, titleFontWeight: 400, titlePadding: 8, labelOverlap: true },
      axisY: { domain: false, ticks: false, labelPadding: 6 }, axisQuantitative: { tickCount: 5 },
      legend: { labelColor: ink, labelFontSize: 12, symbolStrokeWidth: 0, symbolOpacity: 1 },
      rule: { color: soft }, text: { color: soft, fontSize: 11.5 },
    };
  };

  const draw = async () => {
    for (const [id, spec] of Object.entries(plots)) {
      const place = document.getElementById(id);
      const made = { $schema: "https://vega.github.io/schema/vega-lite/v6.json", ...painted(spec, "") };
      await vegaEmbed(place, made, { actions: false, renderer: "svg", ast: true, config: config(), tooltip: { theme: night.matches ? "dark" : "light" } });
      place.dataset.drawn = "yes";
    }
    document.documentElement.dataset.ready = "yes";
  };
  night.addEventListener("change", draw);
  draw();
})();
