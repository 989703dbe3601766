"""Updates: which revision is in force, what its answers say of it, and when it is rolled back."""
