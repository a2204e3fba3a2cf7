//! Tests that need whole frames or captures. Most captures are built here, a few are read from files. The
//! expected figures are those of tshark 4.0 for the same bytes, except for layers inside carriers that tshark
//! does not follow.

mod answers;
mod captures;
mod carriers;
mod frames;
mod packets;
mod runs;
mod times;
mod versions;
