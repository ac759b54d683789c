"""The proof suite's own tools: what stands countries apart, what watches them, and what tells a reader of it."""
