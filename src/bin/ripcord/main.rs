//! The command line of ripcord.

fn main() {}
