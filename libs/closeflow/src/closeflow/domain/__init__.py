"""Pure decisions: frozen data in, frozen data out; no clock, no ids, no I/O."""
