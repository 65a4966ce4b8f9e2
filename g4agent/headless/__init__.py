"""Runs that nobody watches: checks, reports and batches for CI."""
