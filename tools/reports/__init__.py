"""Pages and tables that people look at, made from what a bundle's manifest says."""
