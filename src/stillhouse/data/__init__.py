"""From files to rows: load, formats, sentences, split.  Each row that is left out has a reason, and is counted."""
