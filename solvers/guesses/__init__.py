"""Where solvers begin: targets, grids, homotopies, basins, and the multi-start of one start."""
