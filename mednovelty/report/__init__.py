"""Pictures and pages about maps and evaluations."""
