"""The search: configuration, space, study, execution and report."""
