"""How each kind of problem is drawn; `optctl.simulation.render` says which is drawn how."""
