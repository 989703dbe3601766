"""The main job, end to end: cluster, chart, three kinds, documents, a real model, answers with sources."""
