"""HTML pages of reports: self-contained files, made from templates."""
