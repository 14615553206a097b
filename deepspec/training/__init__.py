"""How the learned component is made: populations, cameras, simulated observations, stages and one loop.

Nothing is imported here; a fit never loads this room.
"""
