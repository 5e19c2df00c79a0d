"""The served policy, and what changes it: the champion, the sentinel and shutdown dates."""
