"""Shows the library at work: live readings into four targets, with trouble of every kind, then an audit."""
