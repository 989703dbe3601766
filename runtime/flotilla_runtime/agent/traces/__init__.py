"""The traces of tasks, for OpenTelemetry: pure values from journals, and how they are sent."""
