"""The demo: it installs Flotilla on a local cluster and asks a fleet questions about real documents."""
