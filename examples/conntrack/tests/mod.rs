//! Tests that need whole frames or captures. Most are built here, a few are read from files. The expected figures are
//! what tshark 4.0 gives for the same bytes, except for layers inside carriers that tshark does not follow.

mod answers;
mod captures;
mod carriers;
mod frames;
mod packets;
mod runs;
mod times;
mod versions;
