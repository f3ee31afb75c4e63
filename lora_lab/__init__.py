"""The command `lora-lab`: one name for the commands of this suite, which keep their own options and errors."""
