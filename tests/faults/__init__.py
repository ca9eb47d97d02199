"""What may go wrong around a run: kills, full disks, damaged files, hostile inputs. Nothing finished is lost, nothing
half-written is taken for whole, and each ends in one clear line.
"""
