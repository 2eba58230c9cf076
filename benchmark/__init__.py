"""The command line of retrieval_bench: parse, call the library, print. No logic lives here."""
