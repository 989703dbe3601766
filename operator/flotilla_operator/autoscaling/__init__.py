"""Pure: signals, policy and memory in, a decision with its reason out."""
