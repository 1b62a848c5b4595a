"""Config files: their settings, the rules between them, and their problems. It never examines the machine."""
