"""What is learnt from stored runs and adapters: tables, figures, studies. Reads results, never trains."""
