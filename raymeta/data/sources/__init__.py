"""Where logs come from: each module turns one kind of log into a `base.Log`."""
