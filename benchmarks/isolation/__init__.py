"""What `isolateTenants` costs."""
