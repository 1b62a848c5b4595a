"""Registered models of MLflow."""
