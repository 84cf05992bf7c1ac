"""One file a plot: from a manifest's record to a Vega-Lite specification, or None where there is nothing."""
