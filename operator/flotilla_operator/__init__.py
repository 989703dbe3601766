"""The Flotilla operator: one reconcile loop over models, indexes and agent fleets."""
