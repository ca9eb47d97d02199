"""What may go wrong around a run: kills, full disks, damaged files, hostile inputs. Nothing finished is lost, nothing
half-written is mistaken for complete, and each fault ends in one clear line.
"""
