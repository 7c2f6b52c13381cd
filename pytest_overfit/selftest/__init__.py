"""Faults planted in the user's own healthy cases: which of them do the case's probes catch, and by what name?"""
