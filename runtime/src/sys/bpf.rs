//! bpf(2): loads and attaches device programs of cgroups.
