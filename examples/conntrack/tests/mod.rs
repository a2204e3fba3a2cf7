//! Tests that need whole frames or captures, which are built here and not read from files. The expected figures
//! are those that tshark 4.0 gives for the same bytes.

mod captures;
mod frames;
mod packets;
mod runs;
