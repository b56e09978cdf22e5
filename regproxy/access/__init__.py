"""Who may have what, and what a registry asks for before it answers."""
