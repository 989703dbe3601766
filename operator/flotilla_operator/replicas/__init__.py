"""The policies of a set: how its replicas come, live, drain and go.

Every function here is pure. It takes and returns values, never manifests, and gets the time as an argument.
"""
