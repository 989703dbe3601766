"""One controller for each kind: observe, decide, act, tell. No other package imports kopf."""
