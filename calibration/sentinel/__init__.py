"""The sentinel: checks on recorded traffic that every question type keeps its target."""
