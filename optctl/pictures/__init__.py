"""How each kind of problem is drawn; `optctl.pictures.render` says which is drawn how."""
