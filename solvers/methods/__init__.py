"""One method each: from a problem, a start and a guess to a solution. None calls the selector."""
