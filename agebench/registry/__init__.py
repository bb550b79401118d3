"""Cards (typed), their discovery, and `Registry[T]`, the one way to register."""
