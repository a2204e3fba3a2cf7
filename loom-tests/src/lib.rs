//! Loom models of the registry.
