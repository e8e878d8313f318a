"""What agents learn from: replay and, later, other stores of experience."""
