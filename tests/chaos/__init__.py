"""The kill harness: processes are killed at named places and at random instants, and a checker says what that broke.

make chaos ARGS="--rows 4 12 --kills 60 --database postgres"
"""
