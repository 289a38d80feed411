"""Meta-learners, as combinations of an update rule, a fast set and a way of passing gradients."""
