"""Laws u(t, x) made from solutions: Riccati, LQG, HJB, replanning, safety."""
