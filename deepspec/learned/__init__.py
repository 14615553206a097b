"""The learned component: networks, their weights as files, and the additive model they make. Nothing is imported here."""
