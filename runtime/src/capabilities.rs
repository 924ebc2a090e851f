//! Capabilities by name and as sets of bits, see capabilities(7).
