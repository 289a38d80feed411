"""Measuring live variants: rates with intervals, alarms, attribution, interleaving."""
