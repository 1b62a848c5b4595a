"""Config files: their settings, the rules between them, and what is wrong with one. It never looks at the machine."""
