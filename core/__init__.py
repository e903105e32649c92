"""The ground floor: errors, files, the command line, the machine, records, pixels. Imports nothing of ours."""
