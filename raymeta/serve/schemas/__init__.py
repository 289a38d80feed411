"""What requests may say and what answers say. Limits that are settings are left to the service."""
