"""Makes the writes that lead to what is wanted of a set; no other folder of this kind makes any."""
