"""The check that an upgrade of the operator disturbs nothing that runs: see `make upgrade-check`."""
