"""Records shown to people: tables derived from a record, never edited by hand."""
