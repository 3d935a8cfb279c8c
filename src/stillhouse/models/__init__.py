"""Models: loading them safely, making small ones from big ones, and tapping their hidden states."""
