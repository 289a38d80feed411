"""How well new users are served: protocol, baselines, intervals and the report."""
