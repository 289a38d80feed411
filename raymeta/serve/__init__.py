"""The service: events in, adapted recommendations out, on Ray Serve."""
