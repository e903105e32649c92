"""The ground floor: errors, files, command line, machine, records, pixels."""
