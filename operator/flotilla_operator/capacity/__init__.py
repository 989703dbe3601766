"""Pure: sizing arithmetic shared by placement, autoscaling and planning."""
