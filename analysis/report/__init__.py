"""One report of all studies: report.html, which needs no other file to be read, and report.md."""
