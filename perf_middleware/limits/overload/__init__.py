"""The overload level: one signal that every layer obeys."""
