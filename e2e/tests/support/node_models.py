"""The folder of the local cluster's node in which sets may keep models; the chart lists it."""

from engine.cache import cache_root

FOLDER = cache_root() / "node-models"
CHART_VALUE = f"modelCache.nodePaths={{{FOLDER}}}"
